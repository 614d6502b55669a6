-- Rows of an export without an image, with several, or with an image that no longer exists: the first few, and their
-- number. `export_rows` is the result of `export/manifest.sql`.
SELECT epoch, position, sample_id, images, count(*) OVER () AS total
FROM export_rows
WHERE images <> 1 OR class_name IS NULL
ORDER BY epoch, position
LIMIT 5
