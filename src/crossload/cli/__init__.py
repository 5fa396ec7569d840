"""The command line: parse, call the API, render. stdout is data, stderr is talk."""
