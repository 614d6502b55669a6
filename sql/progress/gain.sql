-- Learning progress: how much each level of the spectrum validation set was learned in an epoch. It is the mean gain in
-- true-class probability from before the probe to after it, without outliers (beyond 1.5 interquartile ranges), with
-- its standard error. The level with the greatest gain is chosen; among equal gains the lowest level. Means are
-- rounded, so that the order of summation does not matter.
WITH gains AS (
    SELECT a.curriculum, a.trial, a.epoch, v.image_guidance, a.probability - b.probability AS gain
    FROM feedback a
    JOIN feedback b
        ON b.curriculum = a.curriculum AND b.trial = a.trial AND b.epoch = a.epoch AND b.sample_id = a.sample_id
    JOIN validation v ON v.sample_id = a.sample_id
    WHERE a.phase = 'after' AND b.phase = 'before' AND a.curriculum = $strategy
),
quartiles AS (
    SELECT
        curriculum, trial, epoch, image_guidance, count(*) AS samples,
        percentile_cont(0.25) WITHIN GROUP (ORDER BY gain) AS lower,
        percentile_cont(0.75) WITHIN GROUP (ORDER BY gain) AS upper
    FROM gains
    GROUP BY curriculum, trial, epoch, image_guidance
),
judged AS (
    SELECT
        g.curriculum, g.trial, g.epoch, g.image_guidance, g.gain, q.samples,
        g.gain >= q.lower - 1.5 * (q.upper - q.lower) AND g.gain <= q.upper + 1.5 * (q.upper - q.lower) AS inside
    FROM gains g
    JOIN quartiles q
        ON q.curriculum = g.curriculum AND q.trial = g.trial AND q.epoch = g.epoch
        AND q.image_guidance = g.image_guidance
),
levels AS (
    SELECT
        curriculum, trial, epoch, image_guidance, max(samples) AS samples,
        count(*) FILTER (WHERE NOT inside) AS outliers,
        round(avg(gain) FILTER (WHERE inside), 9) AS gain,
        round(stddev(gain) FILTER (WHERE inside) / sqrt(count(*) FILTER (WHERE inside)), 9) AS standard_error
    FROM judged
    GROUP BY curriculum, trial, epoch, image_guidance
)
SELECT
    levels.*,
    row_number() OVER (PARTITION BY curriculum, trial, epoch ORDER BY gain DESC, image_guidance) = 1 AS chosen
FROM levels
