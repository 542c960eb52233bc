-- For wrk: sends requests as they are in a file, each behind a line with its length; what is
-- measured is printed as JSON.  wrk -s wrk.lua URL -- FILE [once]
local requests = {}
local once = false
local turn = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  once = args[2] == "once"
  while true do
    local length = file:read("*n")
    if not length then break end
    file:read(1)
    requests[#requests + 1] = file:read(length)
  end
  file:close()
end

function request()
  turn = turn + 1
  if turn > #requests then
    if once then
      wrk.thread:stop()
      turn = #requests
    else
      turn = 1
    end
  end
  return requests[turn]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "statuses": %d, "errors": %d, "p50": %f, "p95": %f, "p99": %f, "max": %f}\n',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
