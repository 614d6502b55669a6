-- What the trainer reads in each epoch, in order. During the curriculum: a fresh share of the real images that are not
-- hard, every hard one, and images of the epoch's level(s) until hard and synthetic rows together reach their quota; level
-- 100 is the hard real images themselves. Afterwards: hard real images alone, up to the same quota. Sources of the spectrum
-- validation set are left out. With $class_balanced each class has an equal part of what is drawn.
--
-- If more is drawn than there is, every image is taken equally often, and a remainder once more.
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
counts AS (
    SELECT
        count(*) FILTER (WHERE hard) AS hard,
        count(*) FILTER (WHERE NOT hard) AS size,
        cast(floor(round($non_hard_fraction * count(*) FILTER (WHERE NOT hard), 6)) AS bigint) AS non_hard
    FROM real_images
),
-- How many rows that are not hard an epoch takes, and how many it draws.
totals AS (
    SELECT
        non_hard,
        cast(greatest(coalesce(
            floor(round(cast($synthetic_per_hard AS double) * hard, 6)),
            floor(round(cast($hard_share AS double) / (1.0 - cast($hard_share AS double)) * non_hard, 6)) - hard
        ), 0) AS bigint) AS draws,
        CASE WHEN share < 1 THEN lpad(to_hex(cast(4294967296 * share AS bigint)), 8, '0') ELSE 'g' END AS cut
    FROM (SELECT counts.*, (non_hard + 10 * sqrt(non_hard) + 100) / size AS share FROM counts)
),
-- What an epoch may draw from, in groups of which each has an equal part of the draws.
drawable AS (
    SELECT drawable.*, CASE WHEN $class_balanced THEN label ELSE 0 END AS part
    FROM (
        SELECT sample_id, source_id, label, 'synthetic' AS origin, image_guidance, seed, attempt, prompt
        FROM kept k
        WHERE NOT EXISTS (SELECT 1 FROM validation v WHERE v.source_id = k.source_id)
        UNION ALL
        SELECT source_id AS sample_id, source_id, label, 'hard', 100, NULL, NULL, NULL FROM real_images WHERE hard
    ) drawable
),
parts AS (
    SELECT
        s.curriculum, s.trial, s.epoch, p.part, cast(sum(p.size) AS bigint) AS size,
        cast(row_number() OVER (PARTITION BY s.curriculum, s.trial, s.epoch ORDER BY p.part) AS bigint) - 1 AS number,
        count(*) OVER (PARTITION BY s.curriculum, s.trial, s.epoch) AS parts
    FROM schedule s
    JOIN (SELECT image_guidance, label, part, count(*) AS size FROM drawable GROUP BY image_guidance, label, part) p
        ON p.image_guidance = s.image_guidance AND (s.label IS NULL OR s.label = p.label)
    GROUP BY s.curriculum, s.trial, s.epoch, p.part
),
-- How many rows come from which part. Which parts have one more goes round from epoch to epoch.
wanted AS (
    SELECT
        p.curriculum, p.trial, p.epoch, p.part, p.size,
        t.draws / p.parts + CASE
            WHEN (p.number + p.parts - (p.epoch * (t.draws % p.parts)) % p.parts) % p.parts < t.draws % p.parts THEN 1
            ELSE 0
        END AS wanted
    FROM parts p
    CROSS JOIN totals t
),
cuts AS (
    SELECT
        w.curriculum, w.trial, w.epoch, w.part, w.size, w.wanted, s.image_guidance, s.label,
        CASE WHEN w.share < 1 THEN lpad(to_hex(cast(4294967296 * w.share AS bigint)), 8, '0') ELSE 'g' END AS cut
    FROM (SELECT wanted.*, (wanted + 10 * sqrt(wanted) + 100) / size AS share FROM wanted) w
    JOIN schedule s ON s.curriculum = w.curriculum AND s.trial = w.trial AND s.epoch = w.epoch
),
-- The images of each part below its cut, in order.
pool AS (
    SELECT
        pool.*,
        cast(row_number() OVER (PARTITION BY curriculum, trial, epoch, part ORDER BY rank) AS bigint) - 1 AS place
    FROM (
        SELECT
            c.curriculum, c.trial, c.epoch, c.part, c.size, c.wanted, c.cut,
            p.sample_id, p.source_id, p.label, p.origin, p.image_guidance, p.seed, p.attempt, p.prompt,
            digest('synthetic', $curriculum_seed, c.trial, c.epoch, p.sample_id) AS rank
        FROM cuts c
        JOIN drawable p
            ON p.image_guidance = c.image_guidance AND p.part = c.part AND (c.label IS NULL OR c.label = p.label)
    ) pool
    WHERE rank < cut
),
-- The real images that are not hard, as many as an epoch takes.
easy AS (
    SELECT trial, epoch, source_id, label
    FROM (
        SELECT
            trial, epoch, source_id, label, non_hard,
            cast(row_number() OVER (PARTITION BY trial, epoch ORDER BY rank) AS bigint) AS place
        FROM (
            SELECT
                e.trial, e.epoch, r.source_id, r.label, t.non_hard, t.cut,
                digest('non_hard', $curriculum_seed, e.trial, e.epoch, r.source_id) AS rank
            FROM (SELECT DISTINCT trial, epoch FROM schedule) e
            CROSS JOIN real_images r
            CROSS JOIN totals t
            WHERE NOT r.hard
        )
        WHERE rank < cut
    )
    WHERE place <= non_hard
),
epochs AS (
    SELECT DISTINCT curriculum, trial, epoch FROM schedule
),
rows AS (
    SELECT e.curriculum, e.trial, e.epoch, r.source_id AS sample_id, r.source_id, r.label, 'non_hard' AS origin,
        100 AS image_guidance, NULL AS seed, NULL AS attempt, NULL AS prompt, 0 AS draw
    FROM epochs e
    JOIN easy r ON r.trial = e.trial AND r.epoch = e.epoch
    UNION ALL
    SELECT e.curriculum, e.trial, e.epoch, r.source_id AS sample_id, r.source_id, r.label, 'hard', 100,
        NULL, NULL, NULL, -1
    FROM epochs e
    CROSS JOIN real_images r
    WHERE r.hard
    UNION ALL
    SELECT curriculum, trial, epoch, sample_id, source_id, label, origin, image_guidance, seed, attempt, prompt,
        unnest(range(0, wanted / size + CASE WHEN place < wanted % size THEN 1 ELSE 0 END)) AS draw
    FROM pool
),
ordered AS (
    SELECT
        curriculum, trial, epoch,
        -- Counts the rows before this one. By its frame the count is known to grow, so the engine does not sort again.
        count(*) OVER (
            PARTITION BY curriculum, trial, epoch ORDER BY rank ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS position,
        sample_id, source_id, label, origin, image_guidance, seed, attempt, prompt
    FROM (SELECT rows.*, digest('position', $curriculum_seed, trial, epoch, sample_id, draw) AS rank FROM rows)
)
SELECT
    o.curriculum, o.trial, o.epoch, o.position, o.sample_id, o.source_id, o.label, o.origin, o.image_guidance,
    o.seed, o.attempt, o.prompt, c.filter_prompt, c.common_name, c.captions
FROM ordered o
JOIN classes c ON c.label = o.label
