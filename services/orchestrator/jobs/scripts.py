"""What must happen at once in redis, as Lua. Every moment is of redis' own clock, so that hosts' clocks do not matter.

    item:  fresh -> offered -> leased -> done | given up
                       ^          |
                       +- waiting <-      (lease ran out, put off, failed, given back)

`offered` has a message under way; `waiting` gets one when it is due; a lease is known by its token, and only who holds
the token that is in redis may settle the item. `finish` is one more item, offered when all others are settled.

Keys of a job, all under KEYS[1]: the hash itself; `:offered`, `:waiting`, `:leases` (item to milliseconds); `:tokens`,
`:attempts`, `:retries`, `:done` (item to the token under which its part was written), `:dead`; the stream `:events`.
KEYS[2] is the set of jobs that have not ended. A cancelled job keeps its leases until they are let go or run out; then
what its workers wrote is removed (`leavings.py`). The sorted set of such jobs holds when each is next looked at.
"""

PRELUDE = """
local k = KEYS[1]
local function now() local t = redis.call('TIME'); return t[1] * 1000 + math.floor(t[2] / 1000) end
local function get(field) return redis.call('HGET', k, field) end
local function live() local s = get('status'); return s == 'queued' or s == 'running' or s == 'finishing' end
local function tell()
  redis.call('XADD', k .. ':events', 'MAXLEN', '~', 1000, '*', 'status', get('status'),
    'items_total', get('total'), 'items_done', get('done'), 'failed', get('failed'))
end
local function end_job(status, fault)
  redis.call('HSET', k, 'status', status, 'ended_ms', now())
  if fault then redis.call('HSET', k, 'error', fault) end
  tell()
  redis.call('SREM', KEYS[2], get('id'))
  for _, part in ipairs({'offered', 'waiting', 'attempts', 'retries', 'done'}) do
    redis.call('DEL', k .. ':' .. part)
  end
  if status ~= 'cancelled' then redis.call('DEL', k .. ':leases', k .. ':tokens') end
  for _, part in ipairs({'', ':dead', ':events', ':leases', ':tokens'}) do
    redis.call('PEXPIRE', k .. part, get('keep_ms'))
  end
end
local function give_up(item, fault)
  if item == 'finish' then return end_job('failed', fault) end
  -- A thousand say what is wrong; more would only take room.
  if redis.call('HLEN', k .. ':dead') < 1000 then redis.call('HSET', k .. ':dead', item, fault) end
  redis.call('HINCRBY', k, 'failed', 1)
  redis.call('HDEL', k .. ':attempts', item)
  tell()
end
local function let_go(item)
  redis.call('ZREM', k .. ':leases', item)
  redis.call('HDEL', k .. ':tokens', item)
end
local function wait_until(item, due) redis.call('ZADD', k .. ':waiting', due, item) end
"""

# KEYS: job, running, jobs of the tenant, idempotency key or ''. ARGV: body digest, seconds to remember it, job id,
# then the fields of the hash. Returns what is remembered of an earlier submit under the key, or ''.
SUBMIT = (
    "#!lua\n"
    + PRELUDE
    + """
if KEYS[4] ~= '' then
  local known = redis.call('GET', KEYS[4])
  if known then return known end
end
redis.call('HSET', k, 'created_ms', now(), unpack(ARGV, 4))
redis.call('SADD', KEYS[2], ARGV[3])
redis.call('ZADD', KEYS[3], now(), ARGV[3])
if KEYS[4] ~= '' then redis.call('SET', KEYS[4], ARGV[1] .. ' ' .. ARGV[3], 'EX', ARGV[2]) end
tell()
return ''
"""
)

# KEYS[3]: the list of messages that no worker has taken. ARGV: window, milliseconds after which an offer is doubted,
# deliveries, the fault of an item whose workers all ended, job id. Returns how many leases ran out, how many items were
# given up for it, then the items that want a message.
OFFER = (
    "#!lua\n"
    + PRELUDE
    + """
if not live() then redis.call('SREM', KEYS[2], ARGV[5]); return {0, 0} end
local t, window, found, lost = now(), tonumber(ARGV[1]), {0, 0}, 0
for _, item in ipairs(redis.call('ZRANGEBYSCORE', k .. ':leases', '-inf', t, 'LIMIT', 0, 1000)) do
  let_go(item)
  found[1] = found[1] + 1
  if tonumber(redis.call('HGET', k .. ':attempts', item) or 0) >= tonumber(ARGV[3]) then
    give_up(item, ARGV[4])
    found[2] = found[2] + 1
    if not live() then return found end
  else
    wait_until(item, t)
  end
end
-- A message may be lost with redis' last second, or lie with a worker that died before it began. While others wait in
-- the queue it may as well wait behind them, for so long; a second message does no harm.
local doubted = redis.call('LLEN', KEYS[3]) == 0 and t or t - 50 * ARGV[2]
for _, item in ipairs(redis.call('ZRANGEBYSCORE', k .. ':offered', '-inf', doubted, 'LIMIT', 0, 1000)) do
  redis.call('ZREM', k .. ':offered', item)
  wait_until(item, t)
end
local function offer(item)
  redis.call('ZADD', k .. ':offered', t + ARGV[2], item)
  found[#found + 1] = item
end
for _, item in ipairs(redis.call('ZRANGEBYSCORE', k .. ':waiting', '-inf', t, 'LIMIT', 0, window)) do
  redis.call('ZREM', k .. ':waiting', item)
  offer(item)
end
local open, cursor, total = 0, tonumber(get('cursor')), tonumber(get('total'))
for _, part in ipairs({'offered', 'waiting', 'leases'}) do open = open + redis.call('ZCARD', k .. ':' .. part) end
while open < window and cursor < total do
  offer(tostring(cursor))
  cursor, open = cursor + 1, open + 1
end
redis.call('HSET', k, 'cursor', cursor)
if get('status') ~= 'finishing' and tonumber(get('done')) + tonumber(get('failed')) >= total then
  redis.call('HSET', k, 'status', 'finishing')
  offer('finish')
end
return found
"""
)

# ARGV: item, token, milliseconds of the lease. Returns '' when there is nothing to do, else the number of the delivery.
CLAIM = (
    "#!lua\n"
    + PRELUDE
    + """
if not live() or redis.call('ZREM', k .. ':offered', ARGV[1]) == 0 then return '' end
redis.call('ZADD', k .. ':leases', now() + ARGV[3], ARGV[1])
redis.call('HSET', k .. ':tokens', ARGV[1], ARGV[2])
if get('status') == 'queued' then
  redis.call('HSET', k, 'status', 'running', 'started_ms', now())
  tell()
end
return redis.call('HINCRBY', k .. ':attempts', ARGV[1], 1)
"""
)

# ARGV: item, token, milliseconds. Returns ok, or why the work is for nothing: lost (no such job), ended, fenced.
RENEW = (
    "#!lua flags=allow-oom\n"
    + PRELUDE
    + """
if not get('status') then return 'lost' end
if not live() then return 'ended' end
if redis.call('HGET', k .. ':tokens', ARGV[1]) ~= ARGV[2] then return 'fenced' end
redis.call('ZADD', k .. ':leases', now() + ARGV[3], ARGV[1])
return 'ok'
"""
)

# ARGV: item, token, how (done, put_off, failed, given_up, given_back, abort), fault, milliseconds to wait (doubled each
# time that an item is put off), deliveries, retries, the longest wait. Returns what became of it: done, retried,
# waiting, given_up, ended; lost or fenced when nothing was changed.
# A script that settles runs in a full redis too: it takes less than it frees.
# KEYS[3]: cancelled jobs with something to remove. Who settles late may have written late.
SETTLE = (
    "#!lua flags=allow-oom\n"
    + PRELUDE
    + """
local item, how, fault = ARGV[1], ARGV[3], ARGV[4]
if not get('status') then return 'lost' end
if get('status') == 'cancelled' then
  if redis.call('HGET', k .. ':tokens', item) == ARGV[2] then let_go(item) end
  redis.call('ZADD', KEYS[3], now(), get('id'))
end
if not live() then return 'ended' end
if redis.call('HGET', k .. ':tokens', item) ~= ARGV[2] then return 'fenced' end
let_go(item)
if how == 'abort' then end_job('failed', fault); return 'ended' end
if how == 'done' then
  redis.call('HDEL', k .. ':attempts', item)
  if item == 'finish' then
    end_job(tonumber(get('failed')) > 0 and 'completed_with_errors' or 'completed')
  elseif redis.call('HSETNX', k .. ':done', item, ARGV[2]) == 1 then
    redis.call('HINCRBY', k, 'done', 1)
    tell()
  end
  return 'done'
end
local over = how == 'given_up'
if how == 'failed' then over = tonumber(redis.call('HGET', k .. ':attempts', item) or 0) >= tonumber(ARGV[6]) end
if how == 'put_off' or how == 'given_back' then redis.call('HINCRBY', k .. ':attempts', item, -1) end
local wait = tonumber(ARGV[5])
if how == 'put_off' then
  redis.call('HINCRBY', k, 'retried', 1)
  local times = redis.call('HINCRBY', k .. ':retries', item, 1)
  over = times > tonumber(ARGV[7])
  wait = wait * 2 ^ math.min(times - 1, 10)
end
if over then give_up(item, fault); return 'given_up' end
wait_until(item, now() + math.floor(math.min(wait, tonumber(ARGV[8]))))
return how == 'put_off' and 'retried' or 'waiting'
"""
)

# KEYS[3]: cancelled jobs with something to remove. Returns whether there was such a job.
CANCEL = (
    "#!lua flags=allow-oom\n"
    + PRELUDE
    + """
if not get('status') then return 0 end
if live() then
  end_job('cancelled')
  redis.call('ZADD', KEYS[3], now(), get('id'))
end
return 1
"""
)

# KEYS[3]: jobs of the tenant; KEYS[4]: the idempotency key or ''. ARGV: job id.
FORGET = (
    "#!lua flags=allow-oom\n"
    + PRELUDE
    + """
if not get('status') then return 0 end
end_job('cancelled')
redis.call('DEL', k, k .. ':events', k .. ':leases', k .. ':tokens')
redis.call('ZREM', KEYS[3], ARGV[1])
if KEYS[4] ~= '' then redis.call('DEL', KEYS[4]) end
return 1
"""
)
