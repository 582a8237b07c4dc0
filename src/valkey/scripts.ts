/**
 * What Valkey does in one step, in Lua. Each script writes no more than the keys
 * that it is given, and gives each an end. Times are Valkey's own, so that gates
 * need not agree on them. Its clock may be set back, and what was written before then
 * lies too far ahead: no time counts that could not have been written now.
 */

export interface Script {
	readonly name: string;
	readonly lua: string;
}

/** A gate that has not been heard of for so long has ended: what it held is free. */
export const goneMs = 10_000;
/** Lockouts that are kept; of more those that end first are dropped. */
export const maxLocks = 20_000;
/** Lockouts that a gate is told of at a time. */
export const maxToldLocks = 1_000;
/** How long a gate can be away and yet hear of an unlock. */
const unlockHeardMs = 60_000;
/** Gates of which a budget holds what each has used; of more those that have ended are put together. */
const maxBudgetGates = 64;

const now = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

/** Which gates are alive, as a table. Needs `now`. */
const alive = `
local function living(gates)
	local found = {}
	for _, gate in ipairs(redis.call('ZRANGEBYSCORE', gates, now - ${goneMs}, '+inf')) do
		found[gate] = true
	end
	return found
end
`;

/**
 * One request. Keys: the key's minute, the address's minute, slots, gates, locks, and
 * any number of budgets. Arguments: gate; the address's hash in locks; window in ms; limit, floor
 * and the floor's rest in ms of the key, and of the address; slots that this gate
 * has with this one (0: none is wanted), how many there are, how long they are
 * kept; for each budget what this gate has used of it with this request, and how
 * long that is kept.
 *
 * A count is never below its floor, which is what the gate knows of this minute: a
 * Valkey that has lost it goes on from there.
 *
 * Answers: ms of a lockout; count and rest of the key; of the address; 0, 1 (has a
 * slot) or 2 (none is free); for each budget
 * three sums of all gates, and three of those that have ended.
 */
export const admit: Script = {
	name: "llamagateAdmit",
	lua: `${now}${alive}
local gate = ARGV[1]
local lockedUntil = tonumber(redis.call('ZSCORE', KEYS[5], ARGV[2]) or 0)
if lockedUntil > now then
	return {lockedUntil - now, 0, 0, 0, 0, 0}
end
local function hit(key, floor, rest)
	local count = redis.call('INCR', key)
	if count <= floor then
		count = floor + 1
		redis.call('SET', key, count, 'PX', rest)
	elseif count == 1 then
		redis.call('PEXPIRE', key, ARGV[3])
	end
	local left = redis.call('PTTL', key)
	if left < 0 or left > tonumber(ARGV[3]) then
		redis.call('PEXPIRE', key, ARGV[3])
		left = tonumber(ARGV[3])
	end
	return count, left
end
local keyCount, keyLeft = hit(KEYS[1], tonumber(ARGV[5]), ARGV[6])
local sourceCount, sourceLeft = hit(KEYS[2], tonumber(ARGV[8]), ARGV[9])
local answer = {0, keyCount, keyLeft, sourceCount, sourceLeft, 0}
local own = tonumber(ARGV[10])
if keyCount > tonumber(ARGV[4]) or sourceCount > tonumber(ARGV[7]) or own == 0 then
	return answer
end
local gates = living(KEYS[4])
local others = 0
local held = redis.call('HGETALL', KEYS[3])
for i = 1, #held, 2 do
	if held[i] ~= gate then
		if gates[held[i]] then
			others = others + tonumber(held[i + 1])
		else
			redis.call('HDEL', KEYS[3], held[i])
		end
	end
end
if others + own > tonumber(ARGV[11]) then
	answer[6] = 2
	return answer
end
redis.call('HSET', KEYS[3], gate, own)
redis.call('PEXPIRE', KEYS[3], ARGV[12])
answer[6] = 1
for b = 6, #KEYS do
	local value, kept = ARGV[1 + 2 * b], ARGV[2 + 2 * b]
	redis.call('HSET', KEYS[b], gate, value)
	redis.call('PEXPIRE', KEYS[b], kept)
	local all, ended = {0, 0, 0}, {0, 0, 0}
	local used = redis.call('HGETALL', KEYS[b])
	local over = {}
	for i = 1, #used, 2 do
		local isOver = used[i] ~= gate and not gates[used[i]]
		local at = 0
		for amount in string.gmatch(used[i + 1], '%S+') do
			at = at + 1
			all[at] = all[at] + tonumber(amount)
			if isOver then
				ended[at] = ended[at] + tonumber(amount)
			end
		end
		if isOver then
			over[#over + 1] = used[i]
		end
	end
	if #used > 2 * ${maxBudgetGates} and #over > 1 then
		for _, name in ipairs(over) do
			redis.call('HDEL', KEYS[b], name)
		end
		redis.call('HSET', KEYS[b], 'ended', table.concat(ended, ' '))
	end
	for _, sums in ipairs({all, ended}) do
		for at = 1, 3 do
			answer[#answer + 1] = tostring(sums[at])
		end
	end
end
return answer
`,
};

/**
 * What a gate has now, in place of what it had: slots, or what it has used of
 * budgets. Keys: any number. Arguments: gate; then for each key the value ("": none)
 * and how long it is kept.
 */
export const put: Script = {
	name: "llamagatePut",
	lua: `
for i, key in ipairs(KEYS) do
	local value = ARGV[2 * i]
	if value == '' then
		redis.call('HDEL', key, ARGV[1])
	else
		redis.call('HSET', key, ARGV[1], value)
		redis.call('PEXPIRE', key, ARGV[2 * i + 1])
	end
end
return {}
`,
};

/**
 * Raises what gates that have ended used of budgets to what a living one knows of
 * it, by as much as Valkey has lost of it. Keys: gates, then budgets. Arguments: gate;
 * for each budget three sums, and how long they are kept.
 *
 * A gate that was told of them had a field of its own then. If that is still there,
 * the fields of all others count: one that was taken for ended may be alive. If it
 * is not, those of living gates are new, and count for nothing here.
 */
export const remember: Script = {
	name: "llamagateRemember",
	lua: `${now}${alive}
local gate = ARGV[1]
local gates = living(KEYS[1])
for i = 2, #KEYS do
	local isKept = redis.call('HEXISTS', KEYS[i], gate) == 1
	local missing, ended = {}, {}
	for amount in string.gmatch(ARGV[2 * i - 2], '%S+') do
		missing[#missing + 1] = tonumber(amount)
		ended[#ended + 1] = 0
	end
	local used = redis.call('HGETALL', KEYS[i])
	for f = 1, #used, 2 do
		if used[f] ~= gate and (isKept or not gates[used[f]]) then
			local at = 0
			for amount in string.gmatch(used[f + 1], '%S+') do
				at = at + 1
				missing[at] = missing[at] - tonumber(amount)
				if used[f] == 'ended' then
					ended[at] = tonumber(amount)
				end
			end
		end
	end
	if math.max(unpack(missing)) > 0 then
		for at = 1, #ended do
			ended[at] = ended[at] + math.max(0, missing[at])
		end
		redis.call('HSET', KEYS[i], 'ended', table.concat(ended, ' '))
		redis.call('PEXPIRE', KEYS[i], ARGV[2 * i - 1])
	end
end
return {}
`,
};

/**
 * Wrong keys of an address. Keys: the address's count, locks. Arguments: its hash in
 * locks, how many, how many lock it out, within how many ms, for how many ms.
 * Answers with the ms for which it is locked out, or 0.
 */
export const fail: Script = {
	name: "llamagateFail",
	lua: `${now}
local fresh = tonumber(ARGV[2])
local count = redis.call('INCRBY', KEYS[1], fresh)
if count == fresh or redis.call('PTTL', KEYS[1]) > tonumber(ARGV[4]) then
	redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
if count < tonumber(ARGV[3]) then
	return {0}
end
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[5]), ARGV[1])
redis.call('PEXPIRE', KEYS[2], 2147483647)
return {tonumber(ARGV[5])}
`,
};

/** Lockouts that a gate has. Keys: locks. Arguments: hash and ms, in turn. A longer one stays. */
export const lock: Script = {
	name: "llamagateLock",
	lua: `${now}
for i = 1, #ARGV, 2 do
	redis.call('ZADD', KEYS[1], 'GT', now + tonumber(ARGV[i + 1]), ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], 2147483647)
return {}
`,
};

/** Keys: locks, unlocks. Arguments: hashes to let in again, or * for all. */
export const unlock: Script = {
	name: "llamagateUnlock",
	lua: `${now}
for _, hash in ipairs(ARGV) do
	if hash == '*' then
		redis.call('DEL', KEYS[1])
	else
		redis.call('ZREM', KEYS[1], hash)
	end
	redis.call('ZADD', KEYS[2], now, hash)
end
redis.call('PEXPIRE', KEYS[2], ${unlockHeardMs})
return {}
`,
};

/**
 * The sign of life. Keys: gates, epoch, locks, unlocks, served. Arguments: gate; a
 * word for an epoch that begins; since when unlocks are told; the last entry of
 * served that is known; an entry for it ("": none) and its number; how long a
 * lockout is, in ms.
 *
 * Answers: Valkey's time; the epoch, which is another where it has lost its data;
 * how many gates there are; lockouts as hash and ms in turn; unlocks; entries of
 * other gates as id, gate, number and text in turn; the last id.
 */
export const beat: Script = {
	name: "llamagateBeat",
	lua: `${now}
local function noLater(key, latest)
	for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. latest, '+inf')) do
		redis.call('ZADD', key, latest, member)
	end
end
noLater(KEYS[1], now)
noLater(KEYS[3], now + tonumber(ARGV[7]))
noLater(KEYS[4], now)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ${goneMs})
redis.call('PEXPIRE', KEYS[1], ${6 * goneMs})
local epoch = redis.call('GET', KEYS[2])
if not epoch then
	epoch = ARGV[2]
end
redis.call('SET', KEYS[2], epoch, 'PX', 86400000)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
local surplus = redis.call('ZCARD', KEYS[3]) - ${maxLocks}
if surplus > 0 then
	redis.call('ZREMRANGEBYRANK', KEYS[3], 0, surplus - 1)
end
local locks = redis.call('ZREVRANGE', KEYS[3], 0, ${maxToldLocks - 1}, 'WITHSCORES')
for i = 2, #locks, 2 do
	locks[i] = locks[i] - now
end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - ${unlockHeardMs})
local since = tonumber(ARGV[3])
if since > now then
	since = 0
end
local unlocks = redis.call('ZRANGEBYSCORE', KEYS[4], since, '+inf')
if ARGV[5] ~= '' then
	redis.call('XADD', KEYS[5], 'MAXLEN', '~', 256, '*', 'gate', ARGV[1], 'number', ARGV[6], 'served', ARGV[5])
	redis.call('PEXPIRE', KEYS[5], 60000)
end
local last, served = ARGV[4], {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[5], '(' .. last, '+', 'COUNT', 512)) do
	last = entry[1]
	if entry[2][2] ~= ARGV[1] then
		served[#served + 1] = entry[2][2]
		served[#served + 1] = entry[2][4]
		served[#served + 1] = entry[2][6]
	end
end
return {now, epoch, redis.call('ZCARD', KEYS[1]), locks, unlocks, served, last}
`,
};

/** A gate ends. Keys: gates. Arguments: gate. */
export const leave: Script = {
	name: "llamagateLeave",
	lua: `
redis.call('ZREM', KEYS[1], ARGV[1])
return {}
`,
};

export const scripts: readonly Script[] = [
	admit,
	put,
	remember,
	fail,
	lock,
	unlock,
	beat,
	leave,
];
