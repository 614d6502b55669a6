-- What an adaptive trainer trains on between its two measurements of an epoch: $probe_size real images, hard or not,
-- drawn for each epoch; all of them if there are fewer.
SELECT curriculum, trial, epoch, position, source_id AS sample_id, source_id, label
FROM (
    SELECT
        $strategy AS curriculum, t.trial, e.epoch, i.source_id, i.label,
        cast(row_number() OVER (
            PARTITION BY t.trial, e.epoch ORDER BY digest('probe', $curriculum_seed, t.trial, e.epoch, i.source_id)
        ) AS bigint) - 1 AS position
    -- A cross join holds its left side in memory, so the images are on the right.
    FROM (SELECT unnest($trials) AS trial) t
    CROSS JOIN (SELECT unnest(range(0, CASE WHEN $probe_size > 0 THEN $curriculum_epochs ELSE 0 END)) AS epoch) e
    CROSS JOIN images i
    WHERE i.split = 'train' AND NOT EXISTS (SELECT 1 FROM validation v WHERE v.source_id = i.source_id)
)
WHERE position < $probe_size
