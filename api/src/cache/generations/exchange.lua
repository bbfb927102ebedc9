-- The epoch first and then tenants, each with a word in case it gets a new one; with what is to be done, `read`, `renew`, or the word that
-- is to be lent if it still is the word; and with the epoch and the lent word that nobody can go by any more as far as the asking process knows.
-- Answers words, each with the lent one that was taken back.
--
-- Behind a word stands nothing; or an `L`, since it was lent, or may have been before it was forgotten; or the lent word in whose place it
-- came, until somebody who wrote knows that nobody goes by that one any more. In place of one that was forgotten stands one that never was any
-- tenant's. Nothing of this depends on a clock of Redis.

local epoch = redis.pcall('GET', KEYS[1])
if type(epoch) == 'string' and #epoch == 16 then
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
else
    epoch = ARGV[2]
    redis.call('SET', KEYS[1], epoch, 'PX', ARGV[1])
end
local answer = {{epoch, ''}}
for i = 2, #KEYS do
    local fresh, action, ended = ARGV[3 * i - 3], ARGV[3 * i - 2], ARGV[3 * i - 1]
    local value = redis.pcall('GET', KEYS[i])
    local word, behind, lent = fresh, 'L', ARGV[2]
    if type(value) == 'string' and #value >= 16 then
        word, behind = string.sub(value, 1, 16), string.sub(value, 17)
        lent = word
    end
    if action == 'renew' then
        if behind == 'L' then
            behind = lent
        elseif epoch .. behind == ended then
            behind = ''
        end
        word = fresh
    elseif action == word then
        behind = 'L'
    end
    if value ~= word .. behind then
        redis.call('SET', KEYS[i], word .. behind, 'PX', ARGV[1])
    end
    answer[i] = {word, behind == 'L' and '' or behind}
end
return answer
