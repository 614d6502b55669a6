-- What an adaptive curriculum waits for: the first epoch of each trial without complete feedback, and whether it waits for
-- the measurement before the probe, after it, or both. A trial is stale if it was measured on another spectrum validation
-- set than today's, so that it cannot go on.
WITH phases AS (
    SELECT f.trial, f.epoch, f.phase, count(v.sample_id) AS samples
    FROM feedback f
    LEFT JOIN validation v ON v.sample_id = f.sample_id
    WHERE f.curriculum = $strategy AND f.epoch < $curriculum_epochs
    GROUP BY f.trial, f.epoch, f.phase
),
awaited AS (
    SELECT t.trial, count(p.epoch) AS epoch
    FROM (SELECT unnest($trials) AS trial) t
    LEFT JOIN progress p ON p.trial = t.trial AND p.chosen AND p.label IS NULL
    GROUP BY t.trial
    HAVING count(p.epoch) < $curriculum_epochs
)
SELECT
    a.trial, a.epoch,
    NOT EXISTS (SELECT 1 FROM phases p WHERE p.trial = a.trial AND p.epoch = a.epoch AND p.phase = 'before') AS before,
    NOT EXISTS (SELECT 1 FROM phases p WHERE p.trial = a.trial AND p.epoch = a.epoch AND p.phase = 'after') AS after,
    EXISTS (
        SELECT 1 FROM phases p WHERE p.trial = a.trial AND p.samples < (SELECT count(*) FROM validation)
    ) AS stale
FROM awaited a
ORDER BY a.trial
