-- Must return no row if the curriculum is adaptive: how many hard images there are, none of which kept an image at every
-- level, so that there is nothing to measure on.
SELECT count(*) AS hard_images, count(*) FILTER (WHERE levels > 0) AS with_a_kept_image, max(levels) AS most_levels
FROM (
    SELECT h.source_id, count(DISTINCT k.image_guidance) AS levels
    FROM hard_samples h
    LEFT JOIN kept k ON k.source_id = h.source_id
    GROUP BY h.source_id
)
WHERE NOT EXISTS (SELECT 1 FROM validation)
HAVING count(*) > 0
