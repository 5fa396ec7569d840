-- The front of cloud B's object store. The server behind it ignores most preconditions and, worse, writes a key such as
-- "../../x" outside of its own folder and silently merges "a//b" with "a/b". Here such requests are refused, out loud.
-- One worker runs this, so the tables below are seen by every request.
-- Headers read before a call that waits (body, httpCall) are gone after it: take every value first.

local STORE = "fake_gcs"
local BUSY_SECONDS = 15
local busy = {}

local function decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function encode(text)
  return (text:gsub("[^%w%-%._~]", function(c) return string.format("%%%02X", c:byte()) end))
end

local function split_path(path)
  local road, rest = path:match("^([^?]*)%??(.*)$")
  local query = {}
  for key, value in rest:gmatch("([^&=]+)=?([^&]*)") do
    query[decode(key)] = decode((value:gsub("+", " ")))
  end
  return road, query
end

-- Why the store could not hold this key, or nil when it can.
local function bad_key(name)
  if name == nil or name == "" then return nil end
  if name:find("%z") then return "a key must not hold a zero byte" end
  if name:sub(1, 1) == "/" then return "this store cannot hold a key that begins with '/'" end
  if name:find("//", 1, true) then return "this store cannot hold a key with an empty part ('//')" end
  for part in name:gmatch("[^/]+") do
    if part == "." or part == ".." then return "a key must not hold '.' or '..' as a part" end
    if #part > 255 then return "this store cannot hold a key with a part longer than 255 bytes" end
  end
  return nil
end

local function unescape_json(text)
  text = text:gsub("\\u00(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  return (text:gsub('\\(["\\/])', "%1"))
end

-- Every "name" in a JSON text: of the object itself, or of the parts of a compose.
local function names_in(json)
  local names = {}
  for raw in json:gmatch('"name"%s*:%s*"(.-[^\\])"') do names[#names + 1] = unescape_json(raw) end
  for raw in json:gmatch('"\\u006[eE]ame"%s*:%s*"(.-[^\\])"') do names[#names + 1] = unescape_json(raw) end
  return names
end

local function current(handle, bucket, name)
  local headers, body = handle:httpCall(STORE, {
    [":method"] = "GET",
    [":path"] = "/storage/v1/b/" .. encode(bucket) .. "/o/" .. encode(name),
    [":authority"] = "lab",
  }, nil, 10000)
  local status = headers[":status"]
  if status == "404" then return "0", "0" end
  if status ~= "200" or body == nil then return nil, nil end
  return body:match('"generation"%s*:%s*"(%d+)"'), body:match('"metageneration"%s*:%s*"(%d+)"')
end

local function refuse(handle, status, message)
  handle:respond({ [":status"] = tostring(status) }, message)
end

-- True when the request was answered here.
local function broken(handle, wants, bucket, name, reading)
  local any = wants.match or wants.not_match or wants.meta_match
  if not any or not bucket or not name then return false end
  local generation, meta = current(handle, bucket, name)
  if generation == nil then
    refuse(handle, 503, "the store did not say which generation is current")
    return true
  end
  if reading and generation == "0" then return false end
  if (wants.match and wants.match ~= generation) or (wants.meta_match and wants.meta_match ~= meta) then
    refuse(handle, 412, "At least one of the pre-conditions you specified did not hold.")
    return true
  end
  if wants.not_match and wants.not_match == generation then
    refuse(handle, reading and 304 or 412, "At least one of the pre-conditions you specified did not hold.")
    return true
  end
  return false
end

local function wanted(query, headers)
  return {
    match = query["ifGenerationMatch"] or headers:get("x-goog-if-generation-match"),
    not_match = query["ifGenerationNotMatch"],
    meta_match = query["ifMetagenerationMatch"] or headers:get("x-goog-if-metageneration-match"),
  }
end

-- Two writers that both ask "only if it is still absent" must not both be told yes: the check and the write are two calls.
local function claim(handle, bucket, name)
  local key = bucket .. "/" .. name
  local now = os.time()
  if busy[key] and now - busy[key] < BUSY_SECONDS then
    refuse(handle, 429, "The object is being written by another conditional request; try again.")
    return false
  end
  busy[key] = now
  handle:streamInfo():dynamicMetadata():set("lab", "claim", key)
  return true
end

local function release(handle)
  local own = handle:streamInfo():dynamicMetadata():get("lab")
  if own and own["claim"] then busy[own["claim"]] = nil end
end

local function ends_upload(headers)
  local range = headers:get("content-range")
  if range == nil then return true end
  local last, total = range:match("^bytes %d+%-(%d+)/(%d+)$")
  return last ~= nil and tonumber(last) + 1 == tonumber(total)
end

-- How many bytes the second part of a multipart/related body holds.
local function payload_size(text, boundary)
  local _, first_end = text:find("\r\n\r\n", 1, true)
  local _, second_end = text:find("\r\n\r\n", (first_end or 0) + 1, true)
  local closing = second_end and text:find("\r\n--" .. boundary .. "--", second_end - 1, true)
  if not closing then return nil end
  return closing - second_end - 1
end

local function check_upload(handle, bucket, query, headers)
  local kind = query["uploadType"]
  local name = query["name"]
  local names = { name }
  local wants = wanted(query, headers)
  local boundary = (headers:get("content-type") or ""):match('boundary="?([^";]+)')
  local empty = (headers:get("content-length") or "0") == "0" and headers:get("transfer-encoding") == nil
  local last = ends_upload(headers)
  local session = query["upload_id"] ~= nil
  if not session and (kind == "multipart" or kind == "resumable") then
    local body = handle:body()
    local length = body and body:length() or 0
    local text = length > 0 and body:getBytes(0, math.min(length, 65536)) or ""
    if kind == "multipart" then
      local _, stop = text:find("\r\n\r\n", 1, true)
      text = text:sub(1, text:find("\r\n--", (stop or 0) + 1, true) or #text)
    end
    for _, other in ipairs(names_in(text)) do names[#names + 1] = other end
    name = name or names[1]
    if name and name:sub(-1) == "/" and kind == "multipart" then
      local size = boundary and payload_size(body:getBytes(0, length), boundary)
      if size ~= 0 then return refuse(handle, 400, "this store cannot hold content under a key that ends with '/'") end
    end
  end
  for _, one in pairs(names) do
    local reason = bad_key(one)
    if reason then return refuse(handle, 400, reason) end
  end
  if name and name:sub(-1) == "/" and not empty and (kind == "media" or session) then
    return refuse(handle, 400, "this store cannot hold content under a key that ends with '/'")
  end
  if name == nil then return end
  local conditional = wants.match or wants.not_match or wants.meta_match
  if not conditional then return end
  if session and not last then return end
  if kind ~= "resumable" or session then
    if not claim(handle, bucket, name) then return end
  end
  if broken(handle, wants, bucket, name, false) then
    release(handle)
    return
  end
  if kind == "resumable" and not session then
    -- The server forgets the condition between the start and the last byte; the address it hands out will carry it.
    local keep = ""
    for key, value in pairs({ ifGenerationMatch = wants.match, ifGenerationNotMatch = wants.not_match, ifMetagenerationMatch = wants.meta_match }) do
      keep = keep .. "&" .. key .. "=" .. value
    end
    handle:streamInfo():dynamicMetadata():set("lab", "keep", keep)
  end
end

local function check_object(handle, road, query, headers, method)
  local bucket, rest = road:match("/storage/v1/b/([^/]+)/o/(.+)$")
  local reading = method == "GET" or method == "HEAD"
  local wants = wanted(query, headers)
  if not bucket then
    local xml_bucket, xml_name = road:match("^/([^/]+)/(.+)$")
    if xml_bucket and xml_bucket ~= "storage" and xml_bucket ~= "upload" then
      return broken(handle, wants, decode(xml_bucket), decode(xml_name), reading)
    end
    return
  end
  local source, verb, to_bucket, to_name = rest:match("^([^/]+)/(%a+To)/b/([^/]+)/o/([^/]+)$")
  if source then
    local source_wants = { match = query["ifSourceGenerationMatch"], meta_match = query["ifSourceMetagenerationMatch"] }
    if broken(handle, source_wants, decode(bucket), decode(source), false) then return end
    broken(handle, wants, decode(to_bucket), decode(to_name), false)
    return
  end
  local name = decode(rest:match("^([^/]+)"))
  if rest:match("/compose$") then
    local body = handle:body()
    local text = body and body:length() > 0 and body:getBytes(0, math.min(body:length(), 262144)) or ""
    for _, one in ipairs(names_in(text)) do
      local reason = bad_key(one)
      if reason then return refuse(handle, 400, reason) end
    end
  end
  broken(handle, wants, decode(bucket), name, reading)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local method = headers:get(":method")
  handle:streamInfo():dynamicMetadata():set("lab", "asked", headers:get(":authority"))
  local road, query = split_path(headers:get(":path"))
  for part in road:gmatch("[^/]+") do
    local reason = bad_key((decode(part):gsub("/$", "")))
    if reason then return refuse(handle, 400, reason) end
  end
  if road:find("//", 1, true) then return refuse(handle, 400, "this store cannot hold a key with an empty part ('//')") end
  local bucket = road:match("^/upload/storage/v1/b/([^/]+)/o/?$") or road:match("^/resumable/upload/storage/v1/b/([^/]+)/o/?$")
  if bucket and method ~= "GET" then
    return check_upload(handle, decode(bucket), query, headers)
  end
  check_object(handle, road, query, headers, method)
end

function envoy_on_response(handle)
  release(handle)
  local headers = handle:headers()
  local own = handle:streamInfo():dynamicMetadata():get("lab")
  local location = headers:get("location")
  if own and location then
    -- An upload goes on at the address it was begun at: a client on a thin link must not leave it half-way.
    if own["asked"] then location = location:gsub("^http://[^/]+", function() return "http://" .. own["asked"] end) end
    headers:replace("location", location .. (own["keep"] or ""))
  end
  if headers:get(":status") == "500" then
    -- Its disk cannot hold both "a" and "a/b". That is no outage: a client that tries again would wait for ever.
    local body = handle:body()
    local text = body and body:length() > 0 and body:getBytes(0, math.min(body:length(), 4096)) or ""
    headers = handle:headers()
    if text:find("not a directory", 1, true) or text:find("is a directory", 1, true) or text:find("name too long", 1, true) then
      headers:replace(":status", "400")
      local told = text:gsub('"code":500', '"code":400')
      headers:replace("content-length", tostring(body:setBytes(told)))
    end
  end
end
