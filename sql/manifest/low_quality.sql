-- What the trainer reads in each epoch, for images that are hard because they are poor. During the curriculum: a fresh
-- share of the real images that are not hard, and every image of the epoch's level(s); level 100 is the hard real images
-- themselves. Afterwards: all hard real images instead. Sources of the spectrum validation set are left out.
WITH real_images AS (
    SELECT i.source_id, i.label, h.source_id IS NOT NULL AS hard
    FROM images i
    LEFT JOIN hard_samples h ON h.source_id = i.source_id
    WHERE i.split = 'train' AND NOT EXISTS (SELECT 1 FROM validation v WHERE v.source_id = i.source_id)
),
epochs AS (
    SELECT DISTINCT curriculum, trial, epoch FROM schedule
),
totals AS (
    SELECT cast(floor($non_hard_fraction * count(*) FILTER (WHERE NOT hard)) AS bigint) AS non_hard FROM real_images
),
rows AS (
    SELECT curriculum, trial, epoch, source_id AS sample_id, source_id, label, 'non_hard' AS origin,
        100 AS image_guidance, NULL AS seed, NULL AS attempt
    FROM (
        SELECT
            e.curriculum, e.trial, e.epoch, r.source_id, r.label, t.non_hard,
            row_number() OVER (
                PARTITION BY e.curriculum, e.trial, e.epoch
                ORDER BY digest('non_hard', $seed, e.epoch, r.source_id)
            ) AS place
        -- A cross join holds its left side in memory, so the images are on the right.
        FROM epochs e
        CROSS JOIN totals t
        CROSS JOIN real_images r
        WHERE NOT r.hard
    )
    WHERE place <= non_hard
    UNION ALL
    SELECT s.curriculum, s.trial, s.epoch, r.source_id AS sample_id, r.source_id, r.label, 'hard', 100, NULL, NULL
    FROM schedule s
    CROSS JOIN real_images r
    WHERE r.hard AND s.image_guidance = 100
    UNION ALL
    SELECT s.curriculum, s.trial, s.epoch, k.sample_id, k.source_id, k.label, 'synthetic',
        k.image_guidance, k.seed, k.attempt
    FROM schedule s
    JOIN kept k ON k.image_guidance = s.image_guidance
    WHERE s.image_guidance < 100 AND NOT EXISTS (SELECT 1 FROM validation v WHERE v.source_id = k.source_id)
)
SELECT
    curriculum, trial, epoch,
    -- Counts the rows before this one. By its frame the count is known to grow, so the engine does not sort again.
    count(*) OVER (
        PARTITION BY curriculum, trial, epoch ORDER BY rank ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS position,
    sample_id, source_id, label, origin, image_guidance, seed, attempt
FROM (SELECT rows.*, digest('position', $seed, epoch, sample_id) AS rank FROM rows)
