-- The rows of an export in training order: the manifest's rows for the requested epochs, curriculum and trial (NULL
-- matches any), each with its image. `images` counts the rows of `pixels` and `spectrum` that hold the image, which
-- must be 1. `path` is set for real images.
WITH wanted AS (
    SELECT *
    FROM manifest
    WHERE epoch BETWEEN $first_epoch AND $last_epoch
        AND ($curriculum IS NULL OR curriculum = $curriculum)
        AND ($trial IS NULL OR trial = $trial)
),
resolved AS (
    SELECT sample_id, min(image_id) AS image_id, cast(sum(rows) AS bigint) AS images
    FROM (
        SELECT i.source_id AS sample_id, i.pixel_id AS image_id, p.rows
        FROM images i
        JOIN (SELECT pixel_id, count(*) AS rows FROM pixels GROUP BY pixel_id) p ON p.pixel_id = i.pixel_id
        UNION ALL
        SELECT sample_id, sample_id AS image_id, count(*) AS rows FROM spectrum GROUP BY sample_id
    )
    GROUP BY sample_id
)
SELECT
    w.curriculum, w.trial, w.epoch, w.position, w.sample_id, w.source_id, w.label, i.class_name,
    w.origin, w.image_guidance, w.seed, w.attempt, w.prompt, w.filter_prompt, w.common_name, w.captions,
    p.image_id, coalesce(p.images, 0) AS images,
    CASE WHEN w.sample_id = w.source_id THEN i.path END AS path
FROM wanted w
LEFT JOIN resolved p ON p.sample_id = w.sample_id
LEFT JOIN images i ON i.source_id = w.source_id
ORDER BY w.epoch, w.position
