-- In each epoch of the curriculum, the level from which the model learns most, as far as there is feedback from the
-- trainer; then real images only. In the share $exploration of the epochs, the level is drawn instead.
WITH levels AS (
    SELECT
        image_guidance,
        cast(row_number() OVER (ORDER BY image_guidance) AS bigint) - 1 AS place,
        count(*) OVER () AS levels
    FROM (SELECT unnest($levels) AS image_guidance)
),
measured AS (
    SELECT
        trial, epoch, image_guidance,
        draw(1000000, 'explore', $curriculum_seed, trial, epoch) < 1000000 * $exploration AS explores,
        draw((SELECT count(*) FROM levels), 'explored', $curriculum_seed, trial, epoch) AS place
    FROM progress
    WHERE chosen AND label IS NULL
)
SELECT
    $strategy AS curriculum, m.trial, m.epoch, m.epoch AS stage,
    CASE WHEN m.explores THEN l.image_guidance ELSE m.image_guidance END AS image_guidance
FROM measured m
JOIN levels l ON l.place = m.place
UNION ALL
SELECT $strategy, t.trial, e.epoch, $curriculum_epochs, 100
FROM (SELECT unnest($trials) AS trial) t
CROSS JOIN (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch) e
