-- What an export contains: the number of rows of each epoch, by curriculum and trial. `export_rows` is the result of
-- `export/manifest.sql`.
SELECT curriculum, trial, epoch, count(*) AS rows
FROM export_rows
GROUP BY curriculum, trial, epoch
ORDER BY curriculum, trial, epoch
