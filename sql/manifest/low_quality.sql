-- What the trainer reads in each epoch, for images that are hard because they are poor. During the curriculum: a fresh
-- share of the real images that are not hard, and every image of the epoch's level(s); level 100 is the hard real images
-- themselves. Afterwards: all hard real images instead. Sources of the spectrum validation set are left out.
WITH real_images AS (
    SELECT i.source_id, i.label, h.source_id IS NOT NULL AS hard
    FROM images i
    LEFT JOIN hard_samples h ON h.source_id = i.source_id
    WHERE i.split = 'train' AND NOT EXISTS (SELECT 1 FROM validation v WHERE v.source_id = i.source_id)
),
totals AS (
    SELECT cast(floor(round($non_hard_fraction * count(*) FILTER (WHERE NOT hard), 6)) AS bigint) AS non_hard
    FROM real_images
),
easy AS (
    SELECT trial, epoch, source_id, label
    FROM (
        SELECT
            e.trial, e.epoch, r.source_id, r.label, t.non_hard,
            row_number() OVER (
                PARTITION BY e.trial, e.epoch
                ORDER BY digest('non_hard', $curriculum_seed, e.trial, e.epoch, r.source_id)
            ) AS place
        -- A cross join holds its left side in memory, so the images are on the right.
        FROM (SELECT DISTINCT trial, epoch FROM schedule) e
        CROSS JOIN totals t
        CROSS JOIN real_images r
        WHERE NOT r.hard
    )
    WHERE place <= non_hard
),
rows AS (
    SELECT s.curriculum, s.trial, s.epoch, r.source_id AS sample_id, r.source_id, r.label, 'non_hard' AS origin,
        100 AS image_guidance, NULL AS seed, NULL AS attempt, NULL AS prompt
    FROM (SELECT DISTINCT curriculum, trial, epoch FROM schedule) s
    JOIN easy r ON r.trial = s.trial AND r.epoch = s.epoch
    UNION ALL
    SELECT s.curriculum, s.trial, s.epoch, r.source_id AS sample_id, r.source_id, r.label, 'hard', 100, NULL, NULL, NULL
    FROM schedule s
    CROSS JOIN real_images r
    WHERE r.hard AND s.image_guidance = 100 AND (s.label IS NULL OR s.label = r.label)
    UNION ALL
    SELECT s.curriculum, s.trial, s.epoch, k.sample_id, k.source_id, k.label, 'synthetic',
        k.image_guidance, k.seed, k.attempt, k.prompt
    FROM schedule s
    JOIN kept k ON k.image_guidance = s.image_guidance
    WHERE (s.label IS NULL OR s.label = k.label)
        AND NOT EXISTS (SELECT 1 FROM validation v WHERE v.source_id = k.source_id)
),
ordered AS (
    SELECT
        rows.*,
        -- Counts the rows before this one. By its frame the count is known to grow, so the engine does not sort again.
        count(*) OVER (
            PARTITION BY curriculum, trial, epoch ORDER BY digest('position', $curriculum_seed, trial, epoch, sample_id)
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS position
    FROM rows
)
SELECT
    o.curriculum, o.trial, o.epoch, o.position, o.sample_id, o.source_id, o.label, o.origin, o.image_guidance,
    o.seed, o.attempt, o.prompt, c.filter_prompt, c.common_name, c.captions
FROM ordered o
JOIN classes c ON c.label = o.label
