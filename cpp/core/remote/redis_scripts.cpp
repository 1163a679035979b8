#include "core/remote/redis_scripts.hpp"

#include <string_view>

namespace stillwarm {

namespace {

// clang-format off

// What all of them begin with. Numbers are doubles, exact to 2^53.
constexpr std::string_view kMarks = R"lua(
local marks, log, tagged, prefix = KEYS[1], KEYS[2], {KEYS[3], KEYS[4]}, ARGV[2]
local NEVER, LOG, TAGS = 99999999999999, 10000, 32768
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local run = string.sub(ARGV[1], 9)
local kept = redis.call('HMGET', marks, 'i', 'n', 'types', 'r')
local inc, n, types = kept[1], tonumber(kept[2] or 0), kept[3] or ''
local function renew()
  inc, n, types = string.sub(ARGV[1], 1, 8), 0, ''
  -- First what frees room: a script that has begun to write may go on although the server is full.
  redis.call('DEL', marks, log, tagged[1], tagged[2])
  redis.call('HSET', marks, 'i', inc, 'r', run, 'n', 0, 'g', 1, 'c1', 0, 'c2', 0, 's', 0)
end
if not inc or (run ~= '' and kept[4] ~= run) then renew() end
local function numbers(...)
  local found = redis.call('HMGET', marks, ...)
  for i = 1, #found do found[i] = tonumber(found[i] or 0) end
  return found
end
local function head(entry)
  local h = redis.pcall('GETRANGE', entry, 0, 65)
  if type(h) ~= 'string' or #h < 66 or string.sub(h, 1, 1) ~= '1' or string.sub(h, 2, 9) ~= inc then return nil end
  return {born = tonumber(string.sub(h, 10, 21)), version = string.sub(h, 22, 33),
          fresh = tonumber(string.sub(h, 34, 47)), tags = tonumber(string.sub(h, 62, 66))}
end
local function tags_of(entry, size)
  local list, text, at = {}, redis.call('GETRANGE', entry, 66, 65 + size), 1
  while at <= #text do
    local colon = string.find(text, ':', at, true)
    if not colon then break end
    local last = colon + tonumber(string.sub(text, at, colon - 1))
    list[#list + 1] = string.sub(text, colon + 1, last)
    at = last + 1
  end
  return list
end
local function earlier(a, b) if a and a < b then return a end return b end
-- What marks say of something born then: true: invalid; else since when it is stale, or nil.
local function judge(born, kind, list)
  local f = numbers('all', '~all', '@all', 'type:' .. kind, '~type:' .. kind, '@type:' .. kind, 'f', 't')
  if f[1] > born or f[4] > born then return true end
  local since
  if f[2] > born then since = f[3] end
  if f[5] > born then since = earlier(since, f[6]) end
  if #list == 0 then return false, since end
  if f[7] > born then return true end
  if f[8] > born then
    local counts = numbers('c1', 'c2')
    for g = 1, 2 do
      if redis.call('HLEN', tagged[g]) ~= counts[g] then return true end -- evicted
      if counts[g] > 0 then
        for i = 1, #list do
          local m = redis.call('HMGET', tagged[g], 'h' .. list[i], '~' .. list[i], '@' .. list[i])
          if m[1] and tonumber(m[1]) > born then return true end
          if m[2] and tonumber(m[2]) > born then since = earlier(since, tonumber(m[3])) end
        end
      end
    end
  end
  return false, since
end
-- Takes the next number, which `field` gets too.
local function bump(origin, softness, name, field)
  n = n + 1
  redis.call('HSET', marks, 'n', n, field, n)
  redis.call('RPUSH', log, origin .. '\0' .. softness .. name)
  if n % 64 == 0 then redis.call('LTRIM', log, -LOG, -1) end
end
local function now_stale(entry)
  local h = head(entry)
  if not h then return 0 end
  if h.fresh > now then redis.call('SETRANGE', entry, 33, string.format('%014.0f', now)) end
  return 1
end
)lua";

constexpr std::string_view kPoll = R"lua(
if ARGV[3] == inc and tonumber(ARGV[4]) > n then renew() end -- data of before
local told = {inc, tostring(n), 'ok'}
if ARGV[3] == '' then return told end
local missed = n - tonumber(ARGV[4])
if inc ~= ARGV[3] or missed < 0 then told[3] = 'all' return told end
if missed == 0 then return told end
if missed > redis.call('LLEN', log) then told[3] = 'all' return told end
for _, message in ipairs(redis.call('LRANGE', log, -missed, -1)) do told[#told + 1] = message end
return told
)lua";

constexpr std::string_view kJudge = R"lua(
local h = head(KEYS[5])
if not h then return {'', 1, ''} end
local dead, since = judge(h.born, ARGV[3], tags_of(KEYS[5], h.tags))
return {h.version, dead and 1 or 0, since and tostring(since) or ''}
)lua";

constexpr std::string_view kStore = R"lua(
local entry = KEYS[5]
local mode, born_inc, born, stripe, kind, spelled, key, version, expected = unpack(ARGV, 3, 11)
local fresh, keep, origin, channel, tags, body = unpack(ARGV, 12, 17)
local list = {}
for i = 19, #ARGV do list[#list + 1] = ARGV[i] end
local function refused() return {0, inc, n} end
local there, stale
if mode ~= 'set' or born_inc ~= '' then there = head(entry) end
if mode == 'load' or (mode == 'set' and born_inc ~= '') then
  local since = tonumber(born)
  if born_inc ~= inc then
    if mode == 'load' then return refused() end
    since = 0 -- an owed set of before: it yields to everything since
  end
  if there and there.born > since then return refused() end
  local f = numbers('k' .. stripe, 'p', 'w')
  if f[1] > since or f[2] > since or n < since or (mode == 'load' and f[3] > since) then return refused() end
  local dead, soft = judge(since, kind, list)
  if dead or soft then return refused() end
  born = since
elseif mode == 'add' and there and not judge(there.born, kind, tags_of(entry, there.tags)) then
  return refused()
elseif mode == 'swap' then
  if not there or there.version ~= expected then return refused() end
  local own = tags_of(entry, there.tags)
  if judge(there.born, kind, own) then return refused() end
  if born_inc == inc then -- what became stale since it was read stays stale
    local since, f, _ = tonumber(born), numbers('k' .. stripe, 'p')
    _, stale = judge(since, kind, own)
    if (f[1] > since or f[2] > since) and there.fresh <= now then stale = earlier(stale, there.fresh) end
  end
end
if mode ~= 'load' then
  bump(origin, '0', 'key:' .. key, mode == 'set' and born_inc ~= '' and 'w' or 'k' .. stripe)
  born = n
end
if not string.find('\n' .. types .. '\n', '\n' .. spelled .. '\n', 1, true) then
  redis.call('HSET', marks, 'types', types == '' and spelled or types .. '\n' .. spelled)
end
fresh, keep = tonumber(fresh), tonumber(keep)
local until_ = earlier(stale, fresh < 0 and NEVER or now + fresh)
local text = '1' .. inc .. string.format('%012.0f', born) .. version .. string.format('%014.0f%014.0f%05.0f', until_,
  fresh < 0 and NEVER or fresh, tags) .. body
if keep < 0 then
  redis.call('SET', entry, text)
else
  redis.call('SET', entry, text, 'PX', math.max(1, keep))
end
if mode ~= 'load' then redis.pcall('PUBLISH', channel, origin) end
if KEYS[6] and redis.call('GET', KEYS[6]) == ARGV[18] then redis.call('UNLINK', KEYS[6]) end
return {1, inc, n}
)lua";

constexpr std::string_view kInvalidate = R"lua(
local origin, channel = ARGV[3], ARGV[4]
-- A mark of a tag. What was evicted is made up for by the floor; a generation that is full takes the other's place.
local function mark_tag(tag, soft)
  local f = numbers('g', 'c1', 'c2', 's', 'most')
  local g = f[1]
  if redis.call('HLEN', tagged[1]) ~= f[2] or redis.call('HLEN', tagged[2]) ~= f[3] then
    redis.call('DEL', tagged[1], tagged[2])
    redis.call('HSET', marks, 'f', n, 'c1', 0, 'c2', 0, 's', n)
  elseif f[1 + g] >= (f[5] > 0 and f[5] or TAGS) then
    local other = 3 - g
    redis.call('UNLINK', tagged[other])
    redis.call('HSET', marks, 'f', f[4], 'g', other, 'c' .. other, 0, 's', n)
    g = other
  end
  local added
  if soft then
    added = redis.call('HSET', tagged[g], '~' .. tag, n, '@' .. tag, now)
  else
    added = redis.call('HSET', tagged[g], 'h' .. tag, n)
  end
  redis.call('HINCRBY', marks, 'c' .. g, added)
end
local told = {inc, ''}
for i = 5, #ARGV, 4 do
  local name, softness, stripe, key = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local soft, count = softness == '1', 0
  if string.sub(name, 1, 4) == 'key:' then
    bump(origin, softness, name, 'k' .. stripe)
    for spelled in string.gmatch(types, '[^\n]+') do
      local entry = prefix .. spelled .. ':' .. key
      if soft then
        count = math.max(count, now_stale(entry))
      else
        count = math.max(count, redis.call('UNLINK', entry))
      end
    end
  elseif string.sub(name, 1, 4) == 'tag:' then
    bump(origin, softness, name, 't')
    mark_tag(string.sub(name, 5), soft)
  elseif name == 'all' or string.sub(name, 1, 5) == 'type:' then
    bump(origin, softness, name, soft and '~' .. name or name)
    if soft then redis.call('HSET', marks, '@' .. name, now) end
  else
    bump(origin, softness, name, 'p')
  end
  told[2] = tostring(n)
  told[#told + 1] = count
end
redis.pcall('PUBLISH', channel, origin)
return told
)lua";

constexpr std::string_view kMatch = R"lua(
local soft, number, count = ARGV[3] == '1', tonumber(ARGV[4]), 0
for i = 5, #KEYS do
  local h = head(KEYS[i])
  if h and h.born < number then
    if soft then count = count + now_stale(KEYS[i]) else count = count + redis.call('UNLINK', KEYS[i]) end
  end
end
return count
)lua";

constexpr std::string_view kDone = R"lua(
local wanted = ARGV[3] .. '\0'
local all = redis.call('LRANGE', log, 0, -1)
for i = #all, 1, -1 do
  if string.sub(all[i], 1, #wanted) == wanted then return 1 end
end
if inc ~= ARGV[4] or n - #all > tonumber(ARGV[5]) then return -1 end
return 0
)lua";

constexpr std::string_view kTake = R"lua(
local h = head(KEYS[5])
if h and not judge(h.born, ARGV[3], tags_of(KEYS[5], h.tags)) then return 0 end
if redis.call('SET', KEYS[6], ARGV[4], 'NX', 'PX', ARGV[5]) then return 1 end
return redis.call('GET', KEYS[6]) == ARGV[4] and 1 or 0
)lua";

constexpr std::string_view kRenew = R"lua(
for i = 1, #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[i + 1] then redis.call('PEXPIRE', KEYS[i], ARGV[1]) end
end
return 0
)lua";

constexpr std::string_view kGiveBack = R"lua(
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('UNLINK', KEYS[1]) end
return 0
)lua";

constexpr std::string_view kFlush = R"lua(
if redis.call('GET', KEYS[2]) == ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', 3600000)
for i = 2, #ARGV, 2 do redis.call('ZINCRBY', KEYS[1], ARGV[i + 1], ARGV[i]) end
local over = redis.call('ZCARD', KEYS[1]) - 10000
if over > 0 then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, over - 1) end
redis.call('PEXPIRE', KEYS[1], 604800000)
return 1
)lua";

constexpr std::string_view kSurvey = R"lua(
local HEAD = '^1' .. string.rep('.', 8) .. string.rep('%d', 12) .. string.rep('.', 12) .. string.rep('%d', 33) .. '$'
local told = {}
for i = 5, #KEYS do
  local entry, state, size = KEYS[i], 4, 0
  local first = redis.pcall('GETRANGE', entry, 0, 65)
  if type(first) == 'string' then
    size = redis.call('STRLEN', entry)
    if size == 0 then state = 0
    elseif string.find(first, HEAD) then
      local h, dead, since = head(entry), true, nil
      if h then dead, since = judge(h.born, ARGV[i - 1], tags_of(entry, h.tags)) end
      if dead then
        state = 3
        if ARGV[3] == 'purge' then redis.call('UNLINK', entry) end
      else
        state = earlier(since, h.fresh) <= now and 2 or 1
      end
    end
  end
  told[#told + 1] = state
  told[#told + 1] = size
end
return told
)lua";

// clang-format on

struct Text {
  std::string_view body;
  bool marks, frees;
};
constexpr Text kTexts[kRedisScripts] = {
    {kPoll, true, false},     {kJudge, true, false},  {kStore, true, false}, {kInvalidate, true, true},
    {kMatch, true, true},     {kDone, true, false},   {kTake, true, false},  {kRenew, false, false},
    {kGiveBack, false, true}, {kFlush, false, false}, {kSurvey, true, true},
};

}  // namespace

bool is_about_marks(RedisScript script) noexcept { return kTexts[static_cast<std::size_t>(script)].marks; }

std::string text_of(RedisScript script, bool says_flags) {
  const Text& which = kTexts[static_cast<std::size_t>(script)];
  std::string text;
  if (which.frees && says_flags) text = "#!lua flags=allow-oom\n";
  if (which.marks) text += kMarks;
  return text += which.body;
}

}  // namespace stillwarm
