-- In each epoch of the curriculum, for each hard class the level from which the model learns most of this class, as far as
-- there is feedback from the trainer; then real images only. A class that the spectrum validation set does not have gets
-- the level that is best over all classes. In the share $exploration of a class's epochs, its level is drawn instead.
WITH levels AS (
    SELECT
        image_guidance,
        cast(row_number() OVER (ORDER BY image_guidance) AS bigint) - 1 AS place,
        count(*) OVER () AS levels
    FROM (SELECT unnest($levels) AS image_guidance)
),
measured AS (
    SELECT
        o.trial, o.epoch, h.label, coalesce(c.image_guidance, o.image_guidance) AS image_guidance,
        draw(1000000, 'explore', $curriculum_seed, o.trial, o.epoch, h.label) < 1000000 * $exploration AS explores,
        draw((SELECT count(*) FROM levels), 'explored', $curriculum_seed, o.trial, o.epoch, h.label) AS place
    FROM progress o
    CROSS JOIN (SELECT DISTINCT label FROM hard_samples) h
    LEFT JOIN (SELECT trial, epoch, label, image_guidance FROM progress WHERE chosen AND label IS NOT NULL) c
        ON c.trial = o.trial AND c.epoch = o.epoch AND c.label = h.label
    WHERE o.chosen AND o.label IS NULL
)
SELECT
    $strategy AS curriculum, m.trial, m.epoch, m.epoch AS stage,
    CASE WHEN m.explores THEN l.image_guidance ELSE m.image_guidance END AS image_guidance, m.label
FROM measured m
JOIN levels l ON l.place = m.place
UNION ALL
SELECT $strategy, t.trial, e.epoch, $curriculum_epochs, 100, NULL
FROM (SELECT unnest($trials) AS trial) t
CROSS JOIN (SELECT unnest(range($curriculum_epochs, $epochs)) AS epoch) e
