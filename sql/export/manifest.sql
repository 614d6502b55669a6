-- The rows of an export in training order: those of the manifest for the epochs, curriculum and trial that are asked
-- for (NULL asks for any), each with the picture that it stands for. `pictures` says how many rows of `pixels` and
-- `spectrum` hold that picture, which has to be 1; `path` and `digest` are of real images.
WITH wanted AS (
    SELECT *
    FROM manifest
    WHERE epoch BETWEEN $first_epoch AND $last_epoch
        AND ($curriculum IS NULL OR curriculum = $curriculum)
        AND ($trial IS NULL OR trial = $trial)
),
pictures AS (
    SELECT sample_id, min(picture_id) AS picture_id, cast(sum(rows) AS bigint) AS pictures
    FROM (
        SELECT i.source_id AS sample_id, i.pixel_id AS picture_id, p.rows
        FROM images i
        JOIN (SELECT pixel_id, count(*) AS rows FROM pixels GROUP BY pixel_id) p ON p.pixel_id = i.pixel_id
        UNION ALL
        SELECT sample_id, sample_id AS picture_id, count(*) AS rows FROM spectrum GROUP BY sample_id
    )
    GROUP BY sample_id
)
SELECT
    w.curriculum, w.trial, w.epoch, w.position, w.sample_id, w.source_id, w.label, i.class_name,
    w.origin, w.image_guidance, w.seed, w.attempt,
    p.picture_id, coalesce(p.pictures, 0) AS pictures,
    CASE WHEN w.sample_id = w.source_id THEN i.path END AS path,
    CASE WHEN w.sample_id = w.source_id THEN i.digest END AS digest
FROM wanted w
LEFT JOIN pictures p ON p.sample_id = w.sample_id
LEFT JOIN images i ON i.source_id = w.source_id
ORDER BY w.epoch, w.position
