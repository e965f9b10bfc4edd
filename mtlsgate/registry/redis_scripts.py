"""
What a Redis does at once: scripts, in Lua.

Each works on one key, so that a cluster can run it.  A script that writes changes nothing
if what is there is right already: then no gate is told of a change.
"""

from __future__ import annotations

from hashlib import sha1

from attrs import frozen

from mtlsgate.registry.redis_links import Command


@frozen
class Script:
    """
    A script.

    :ivar text: in Lua.
    :ivar digest: what a server knows it by once it has run.
    """

    text: str
    digest: str

    def run(self, key: bytes, *arguments: str | int) -> Command:
        """:returns: the command that runs it, if the server has it: NOSCRIPT otherwise."""
        return ("EVALSHA", self.digest, 1, key, *arguments)

    def teach(self, command: Command) -> Command:
        """
        :param command: what `run` has returned.
        :returns: a command that does the same, and lets the server keep the script.
        """
        return ("EVAL", self.text, *command[2:])


def _script(text: str) -> Script:
    # Not for security: it is how Redis names scripts.
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


#: KEYS: a device.  ARGV: names and values of its fields, in turns.
#: A full server refuses a new device, but not to replace one.
#: Returns 1 if it was added, 2 if it was changed, 0 if it was so already.
PUT = _script("""
local key = KEYS[1]
local kind = redis.call('TYPE', key).ok
if kind == 'hash' and redis.call('PTTL', key) == -1 then
  local old = redis.call('HGETALL', key)
  if #old == #ARGV then
    local fields = {}
    for i = 1, #old, 2 do fields[old[i]] = old[i + 1] end
    local same = true
    for i = 1, #ARGV, 2 do same = same and fields[ARGV[i]] == ARGV[i + 1] end
    if same then return 0 end
  end
end
if kind ~= 'none' then redis.call('DEL', key) end
redis.call('HSET', key, unpack(ARGV))
return kind == 'none' and 1 or 2
""")

#: KEYS: a limit.  ARGV: the holder, how many places there are, milliseconds.
#: Returns 1 if there was a place.
LEASE = _script("""
local key, holder, places, lasts = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
if not redis.call('ZSCORE', key, holder) and redis.call('ZCARD', key) >= places then
  return 0
end
redis.call('ZADD', key, now + lasts, holder)
if redis.call('PTTL', key) < lasts then redis.call('PEXPIRE', key, lasts) end
return 1
""")
