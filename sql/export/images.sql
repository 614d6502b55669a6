-- Images by id, unchanged. When this runs, each table is already restricted to the requested ids.
SELECT pixel_id AS image_id, image FROM pixels
UNION ALL
SELECT sample_id AS image_id, image FROM spectrum
