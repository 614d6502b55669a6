-- Learning progress: how much each level of the spectrum validation set was learned in an epoch, over all classes (label
-- NULL) and for each class. It is the mean gain in true-class probability from before the probe to after it, without
-- outliers (beyond 1.5 interquartile ranges), with its standard error. The level with the greatest gain is chosen; among
-- equal gains the lowest level. Means are rounded, so that the order of summation does not matter.
--
-- An epoch counts once its feedback covers the validation set in both phases, and that of every epoch before it does.
WITH covered AS (
    SELECT f.trial, f.epoch
    FROM feedback f
    JOIN validation v ON v.sample_id = f.sample_id
    WHERE f.curriculum = $strategy AND f.epoch < $curriculum_epochs AND f.phase IN ('before', 'after')
        AND f.trial IN (SELECT unnest($trials))
    GROUP BY f.trial, f.epoch
    HAVING count(*) = 2 * (SELECT count(*) FROM validation)
),
complete AS (
    SELECT trial, epoch
    FROM (SELECT trial, epoch, row_number() OVER (PARTITION BY trial ORDER BY epoch) AS place FROM covered)
    WHERE place = epoch + 1
),
gains AS (
    SELECT a.trial, a.epoch, v.label, v.image_guidance, a.probability - b.probability AS gain
    FROM complete c
    JOIN feedback a ON a.trial = c.trial AND a.epoch = c.epoch
    JOIN feedback b
        ON b.curriculum = a.curriculum AND b.trial = a.trial AND b.epoch = a.epoch AND b.sample_id = a.sample_id
    JOIN validation v ON v.sample_id = a.sample_id
    WHERE a.phase = 'after' AND b.phase = 'before' AND a.curriculum = $strategy
        AND v.image_guidance IN (SELECT unnest($levels))
),
-- All classes together have the scope -1.
scoped AS (
    SELECT trial, epoch, -1 AS scope, image_guidance, gain FROM gains
    UNION ALL
    SELECT trial, epoch, label, image_guidance, gain FROM gains
),
quartiles AS (
    SELECT
        trial, epoch, scope, image_guidance, count(*) AS samples,
        percentile_cont(0.25) WITHIN GROUP (ORDER BY gain) AS lower,
        percentile_cont(0.75) WITHIN GROUP (ORDER BY gain) AS upper
    FROM scoped
    GROUP BY trial, epoch, scope, image_guidance
),
judged AS (
    SELECT
        g.trial, g.epoch, g.scope, g.image_guidance, g.gain, q.samples,
        g.gain >= q.lower - 1.5 * (q.upper - q.lower) AND g.gain <= q.upper + 1.5 * (q.upper - q.lower) AS inside
    FROM scoped g
    JOIN quartiles q
        ON q.trial = g.trial AND q.epoch = g.epoch AND q.scope = g.scope AND q.image_guidance = g.image_guidance
),
levels AS (
    SELECT
        trial, epoch, scope, image_guidance, max(samples) AS samples,
        count(*) FILTER (WHERE NOT inside) AS outliers,
        round(avg(gain) FILTER (WHERE inside), 9) AS gain,
        round(stddev(gain) FILTER (WHERE inside) / sqrt(count(*) FILTER (WHERE inside)), 9) AS standard_error
    FROM judged
    GROUP BY trial, epoch, scope, image_guidance
)
SELECT
    $strategy AS curriculum, trial, epoch, nullif(scope, -1) AS label, image_guidance, samples, outliers, gain,
    standard_error,
    row_number() OVER (PARTITION BY trial, epoch, scope ORDER BY gain DESC, image_guidance) = 1 AS chosen
FROM levels
