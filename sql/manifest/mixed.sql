-- What the trainer reads in each epoch, in order. During the curriculum: a fresh share of the real images that are not
-- hard, every hard one, and synthetic ones of the epoch's level(s) until hard and synthetic rows together reach the hard
-- share. Afterwards: hard real images, drawn with replacement up to the same share. Sources of the spectrum validation
-- set are left out. With $class_balanced each class has an equal part of the synthetic rows.
--
-- An epoch takes the first n of m rows in the order of their digests. Digests are uniform, so these n are below n/m of
-- their range, give or take √n/m. Hence nothing above a `cut` at (n + 10 √n + 100) / m needs sorting: the chance that
-- one of the n is above it is less than 1 in 10²¹.
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
        hard, non_hard,
        CASE WHEN share < 1 THEN lpad(to_hex(cast(4294967296 * share AS bigint)), 8, '0') ELSE 'g' END AS cut
    FROM (
        SELECT hard, non_hard, (non_hard + 10 * sqrt(non_hard) + 100) / size AS share
        FROM (
            SELECT
                count(*) FILTER (WHERE hard) AS hard,
                count(*) FILTER (WHERE NOT hard) AS size,
                cast(floor($non_hard_fraction * count(*) FILTER (WHERE NOT hard)) AS bigint) AS non_hard
            FROM real_images
        )
    )
),
generated AS (
    SELECT
        k.sample_id, k.source_id, k.label, k.image_guidance, k.seed, k.attempt,
        CASE WHEN $class_balanced THEN k.label ELSE 0 END AS part
    FROM kept k
    WHERE NOT EXISTS (SELECT 1 FROM validation v WHERE v.source_id = k.source_id)
),
hard_pool AS (
    SELECT source_id, label, cast(row_number() OVER (ORDER BY source_id) AS bigint) - 1 AS place
    FROM real_images
    WHERE hard
),
-- The groups of images that an epoch may draw from.
parts AS (
    SELECT
        s.curriculum, s.trial, s.epoch, p.part, cast(sum(p.size) AS bigint) AS size,
        cast(row_number() OVER (PARTITION BY s.curriculum, s.trial, s.epoch ORDER BY p.part) AS bigint) - 1 AS number,
        count(*) OVER (PARTITION BY s.curriculum, s.trial, s.epoch) AS parts
    FROM schedule s
    JOIN (SELECT image_guidance, part, count(*) AS size FROM generated GROUP BY image_guidance, part) p
        ON p.image_guidance = s.image_guidance
    GROUP BY s.curriculum, s.trial, s.epoch, p.part
),
quotas AS (
    SELECT
        e.curriculum, e.trial, e.epoch, e.real_only, t.hard,
        cast(floor($hard_share / (1.0 - $hard_share) * t.non_hard) AS bigint) AS quota
    FROM epochs e
    CROSS JOIN totals t
),
-- How many rows come from which part. If an epoch has no part, they come from the hard real images.
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
cuts AS (
    SELECT
        w.curriculum, w.trial, w.epoch, w.part, s.image_guidance,
        CASE WHEN w.share < 1 THEN lpad(to_hex(cast(4294967296 * w.share AS bigint)), 8, '0') ELSE 'g' END AS cut
    FROM (SELECT wanted.*, (wanted + 10 * sqrt(wanted) + 100) / size AS share FROM wanted) w
    JOIN schedule s ON s.curriculum = w.curriculum AND s.trial = w.trial AND s.epoch = w.epoch
),
-- The images of each part below its cut, in order.
pool AS (
    SELECT
        curriculum, trial, epoch, part, sample_id, source_id, label, image_guidance, seed, attempt,
        cast(row_number() OVER (PARTITION BY curriculum, trial, epoch, part ORDER BY rank) AS bigint) - 1 AS place
    FROM (
        SELECT
            c.curriculum, c.trial, c.epoch, c.part, c.cut,
            p.sample_id, p.source_id, p.label, p.image_guidance, p.seed, p.attempt,
            digest('synthetic', $seed, c.epoch, p.sample_id) AS rank
        FROM cuts c
        JOIN generated p ON p.image_guidance = c.image_guidance AND p.part = c.part
    )
    WHERE rank < cut
),
draws AS (
    SELECT wanted.*, unnest(range(0, wanted)) AS draw FROM wanted
),
-- Without replacement if there are more images than wanted, with replacement otherwise.
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
-- The real images that are not hard, as many as an epoch takes.
easy AS (
    SELECT epoch, source_id, label
    FROM (
        SELECT
            epoch, source_id, label, non_hard,
            cast(row_number() OVER (PARTITION BY epoch ORDER BY rank) AS bigint) AS place
        FROM (
            SELECT
                e.epoch, r.source_id, r.label, t.non_hard, t.cut,
                digest('non_hard', $seed, e.epoch, r.source_id) AS rank
            FROM (SELECT DISTINCT epoch FROM schedule) e
            CROSS JOIN real_images r
            CROSS JOIN totals t
            WHERE NOT r.hard
        )
        WHERE rank < cut
    )
    WHERE place <= non_hard
),
rows AS (
    SELECT e.curriculum, e.trial, e.epoch, r.source_id AS sample_id, r.source_id, r.label, 'non_hard' AS origin,
        100 AS image_guidance, NULL AS seed, NULL AS attempt, 0 AS draw
    FROM epochs e
    JOIN easy r ON r.epoch = e.epoch
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
    -- Counts the rows before this one. By its frame the count is known to grow, so the engine does not sort again.
    count(*) OVER (
        PARTITION BY curriculum, trial, epoch ORDER BY rank ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS position,
    sample_id, source_id, label, origin, image_guidance, seed, attempt
FROM (SELECT rows.*, digest('position', $seed, epoch, sample_id, draw) AS rank FROM rows)
