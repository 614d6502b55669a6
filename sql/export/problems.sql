-- Rows of an export that stand for no image, for several, or for an image that is not there any more: the first few,
-- and how many there are. `export_rows` is the query `export/manifest.sql`.
SELECT epoch, position, sample_id, images, count(*) OVER () AS total
FROM export_rows
WHERE images <> 1 OR class_name IS NULL
ORDER BY epoch, position
LIMIT 5
