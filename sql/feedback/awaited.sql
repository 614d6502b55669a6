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
    a.trial, a.epoch, coalesce(p.before, 0) = 0 AS before, coalesce(p.after, 0) = 0 AS after, s.trial IS NOT NULL AS stale
FROM awaited a
LEFT JOIN (
    SELECT
        trial, epoch,
        count(*) FILTER (WHERE phase = 'before') AS before, count(*) FILTER (WHERE phase = 'after') AS after
    FROM phases
    GROUP BY trial, epoch
) p ON p.trial = a.trial AND p.epoch = a.epoch
LEFT JOIN (SELECT DISTINCT trial FROM phases WHERE samples < (SELECT count(*) FROM validation)) s ON s.trial = a.trial
ORDER BY a.trial
