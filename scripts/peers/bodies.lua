-- For wrk: posts the lines of a file in turn, and prints what was measured as one line of JSON.
-- usage: wrk … -s bodies.lua URL -- FILE [HEADER VALUE]…

local bodies, threads = {}, 0

-- Each thread has an environment of its own, and begins at another line.
function setup(thread)
  thread:set("place", 97 * threads)
  threads = threads + 1
end

function init(arguments)
  for line in io.lines(arguments[1]) do
    bodies[#bodies + 1] = line
  end
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  for at = 2, #arguments, 2 do
    wrk.headers[arguments[at]] = arguments[at + 1]
  end
end

function request()
  place = place + 1
  return wrk.format(nil, nil, nil, bodies[place % #bodies + 1])
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format('{"rate": %f, "p50": %f, "p99": %f, "errors": %d}', summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, failed))
end
