-- What the trainer reads in each epoch, in order. In the curriculum: a fresh share of the real images that are
-- not hard, every hard one, and synthetic ones of the epoch's level(s) until hard and synthetic rows together
-- reach the hard share; afterwards hard real images, drawn with replacement up to the same share. Sources of the
-- spectrum validation set are left out. With $class_balanced each class has an equal part of the synthetic rows.
WITH real_images AS (
    SELECT i.source_id, i.label, h.source_id IS NOT NULL AS hard
    FROM images i
    LEFT JOIN hard_samples h ON h.source_id = i.source_id
    WHERE i.split = 'train' AND NOT EXISTS (SELECT 1 FROM validation v WHERE v.source_id = i.source_id)
),
epochs AS (
    SELECT curriculum, trial, epoch, min(image_guidance) = 100 AS real_only
    FROM schedule
    GROUP BY curriculum, trial, epoch
),
totals AS (
    SELECT
        count(*) FILTER (WHERE hard) AS hard,
        cast(floor($non_hard_fraction * count(*) FILTER (WHERE NOT hard)) AS bigint) AS non_hard
    FROM real_images
),
-- the pictures that an epoch may draw from, each group in an order of its own
pool AS (
    SELECT
        s.curriculum, s.trial, s.epoch, k.sample_id, k.source_id, k.label, k.image_guidance, k.seed, k.attempt,
        CASE WHEN $class_balanced THEN k.label ELSE 0 END AS part,
        cast(row_number() OVER (
            PARTITION BY s.curriculum, s.trial, s.epoch, CASE WHEN $class_balanced THEN k.label ELSE 0 END
            ORDER BY digest('synthetic', $seed, s.epoch, k.sample_id)
        ) AS bigint) - 1 AS place
    FROM schedule s
    JOIN kept k ON k.image_guidance = s.image_guidance
    WHERE NOT EXISTS (SELECT 1 FROM validation v WHERE v.source_id = k.source_id)
),
hard_pool AS (
    SELECT source_id, label, cast(row_number() OVER (ORDER BY source_id) AS bigint) - 1 AS place
    FROM real_images
    WHERE hard
),
parts AS (
    SELECT
        curriculum, trial, epoch, part, count(*) AS size,
        cast(row_number() OVER (PARTITION BY curriculum, trial, epoch ORDER BY part) AS bigint) - 1 AS number,
        count(*) OVER (PARTITION BY curriculum, trial, epoch) AS parts
    FROM pool
    GROUP BY curriculum, trial, epoch, part
),
quotas AS (
    SELECT
        e.curriculum, e.trial, e.epoch, e.real_only, t.hard,
        cast(floor($hard_share / (1.0 - $hard_share) * t.non_hard) AS bigint) AS quota
    FROM epochs e
    CROSS JOIN totals t
),
-- how many rows come from which part of the pool; from the hard real images where there is no pool
wanted AS (
    SELECT
        q.curriculum, q.trial, q.epoch, q.hard, p.part, p.size,
        CASE WHEN p.part IS NULL THEN q.wanted
            ELSE q.wanted / p.parts + CASE WHEN p.number < q.wanted % p.parts THEN 1 ELSE 0 END
        END AS wanted
    FROM (
        SELECT quotas.*, CASE WHEN real_only THEN quota ELSE greatest(quota - hard, 0) END AS wanted FROM quotas
    ) q
    LEFT JOIN parts p
        ON p.curriculum = q.curriculum AND p.trial = q.trial AND p.epoch = q.epoch AND NOT q.real_only
),
draws AS (
    SELECT wanted.*, unnest(range(0, wanted)) AS draw FROM wanted
),
-- without replacement where there are more pictures than are wanted, with replacement otherwise
places AS (
    SELECT
        draws.*,
        CASE
            WHEN part IS NULL AND hard > 0 THEN draw(hard, 'hard', $seed, epoch, draw)
            WHEN size > wanted THEN draw
            WHEN size > 0 THEN draw(size, 'synthetic', $seed, epoch, part, draw)
        END AS place
    FROM draws
),
rows AS (
    SELECT curriculum, trial, epoch, source_id AS sample_id, source_id, label, 'non_hard' AS origin,
        100 AS image_guidance, NULL AS seed, NULL AS attempt, 0 AS draw
    FROM (
        SELECT
            e.curriculum, e.trial, e.epoch, r.source_id, r.label, t.non_hard,
            row_number() OVER (
                PARTITION BY e.curriculum, e.trial, e.epoch
                ORDER BY digest('non_hard', $seed, e.epoch, r.source_id)
            ) AS place
        FROM epochs e
        CROSS JOIN real_images r
        CROSS JOIN totals t
        WHERE NOT r.hard
    )
    WHERE place <= non_hard
    UNION ALL
    SELECT e.curriculum, e.trial, e.epoch, r.source_id AS sample_id, r.source_id, r.label, 'hard', 100, NULL, NULL, -1
    FROM epochs e
    CROSS JOIN real_images r
    WHERE r.hard AND NOT e.real_only
    UNION ALL
    SELECT d.curriculum, d.trial, d.epoch, h.source_id AS sample_id, h.source_id, h.label, 'hard', 100, NULL, NULL, d.draw
    FROM places d
    JOIN hard_pool h ON h.place = d.place
    WHERE d.part IS NULL
    UNION ALL
    SELECT d.curriculum, d.trial, d.epoch, p.sample_id, p.source_id, p.label, 'synthetic',
        p.image_guidance, p.seed, p.attempt, d.draw
    FROM places d
    JOIN pool p ON p.curriculum = d.curriculum AND p.trial = d.trial AND p.epoch = d.epoch
        AND p.part = d.part AND p.place = d.place
)
SELECT
    curriculum, trial, epoch,
    cast(row_number() OVER (
        PARTITION BY curriculum, trial, epoch
        ORDER BY digest('position', $seed, epoch, sample_id, draw)
    ) AS bigint) - 1 AS position,
    sample_id, source_id, label, origin, image_guidance, seed, attempt
FROM rows
