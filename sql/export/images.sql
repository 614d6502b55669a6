-- Images by their ids, as they are in the lake. By the time that this runs, each table is narrowed to the ids that
-- are asked for.
SELECT pixel_id AS image_id, image FROM pixels
UNION ALL
SELECT sample_id AS image_id, image FROM spectrum
