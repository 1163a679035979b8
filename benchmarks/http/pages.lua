-- wrk asks for pages 100, 101, ... 299 in turn.
local n = 0

function request()
  n = n % 200 + 1
  return wrk.format("GET", "/page?n=" .. (n + 99))
end
