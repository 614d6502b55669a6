-- What the trainer reads in each epoch, in order. In the curriculum: a fresh share of the real images that are
-- not hard, every hard one, and synthetic ones of the epoch's level(s) until hard and synthetic rows together
-- reach the hard share; afterwards hard real images, drawn with replacement up to the same share.
WITH real_images AS (
    SELECT i.source_id, i.label, h.source_id IS NOT NULL AS hard
    FROM images i
    LEFT JOIN hard_samples h ON h.source_id = i.source_id
    WHERE i.split = 'train'
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
-- the pictures that an epoch may draw from, in an order of its own
pool AS (
    SELECT
        s.curriculum, s.trial, s.epoch, k.sample_id, k.source_id, k.label, k.image_guidance, k.seed, k.attempt,
        cast(row_number() OVER (
            PARTITION BY s.curriculum, s.trial, s.epoch
            ORDER BY digest('synthetic', $seed, s.epoch, k.sample_id)
        ) AS bigint) - 1 AS place
    FROM schedule s
    JOIN kept k ON k.image_guidance = s.image_guidance
),
hard_pool AS (
    SELECT source_id, label, cast(row_number() OVER (ORDER BY source_id) AS bigint) - 1 AS place
    FROM real_images
    WHERE hard
),
pool_sizes AS (
    SELECT curriculum, trial, epoch, count(*) AS size FROM pool GROUP BY curriculum, trial, epoch
),
quotas AS (
    SELECT
        e.curriculum, e.trial, e.epoch, e.real_only, t.hard, coalesce(p.size, 0) AS size,
        cast(floor($hard_share / (1.0 - $hard_share) * t.non_hard) AS bigint) AS quota
    FROM epochs e
    CROSS JOIN totals t
    LEFT JOIN pool_sizes p ON p.curriculum = e.curriculum AND p.trial = e.trial AND p.epoch = e.epoch
),
draws AS (
    SELECT
        curriculum, trial, epoch, hard, size, NOT real_only AND size > 0 AS synthetic,
        CASE WHEN real_only THEN quota ELSE greatest(quota - hard, 0) END AS wanted,
        unnest(range(0, CASE WHEN real_only THEN quota ELSE greatest(quota - hard, 0) END)) AS draw
    FROM quotas
),
-- without replacement where there are more pictures than are wanted, with replacement otherwise
places AS (
    SELECT
        draws.*,
        CASE
            WHEN synthetic AND size > wanted THEN draw
            WHEN synthetic THEN draw(size, 'synthetic', $seed, epoch, draw)
            WHEN hard > 0 THEN draw(hard, 'hard', $seed, epoch, draw)
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
    WHERE NOT d.synthetic
    UNION ALL
    SELECT d.curriculum, d.trial, d.epoch, p.sample_id, p.source_id, p.label, 'synthetic',
        p.image_guidance, p.seed, p.attempt, d.draw
    FROM places d
    JOIN pool p ON p.curriculum = d.curriculum AND p.trial = d.trial AND p.epoch = d.epoch AND p.place = d.place
    WHERE d.synthetic
)
SELECT
    curriculum, trial, epoch,
    cast(row_number() OVER (
        PARTITION BY curriculum, trial, epoch
        ORDER BY digest('position', $seed, epoch, sample_id, draw)
    ) AS bigint) - 1 AS position,
    sample_id, source_id, label, origin, image_guidance, seed, attempt
FROM rows
