-- The images that the built-in learner may see.
SELECT image_id, load_image(image) AS image
FROM (
    SELECT pixel_id AS image_id, image FROM pixels WHERE pixel_id IN (SELECT pixel_id FROM images)
    UNION ALL
    SELECT sample_id, image FROM spectrum WHERE sample_id IN (SELECT sample_id FROM kept)
)
