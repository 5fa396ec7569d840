"""python -m helpdesk ask QUESTION | work"""

import sys

from .service import Helpdesk


def main(arguments):
    if arguments[:1] == ["ask"] and len(arguments) == 2:
        answer = Helpdesk().ask(arguments[1])
        print(f"{answer['text']}  [{answer['source'] or 'no document'}]")
        return 0
    if arguments == ["work"]:
        print("\n".join(Helpdesk().work("answers/", count=10)) or "no jobs")
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
