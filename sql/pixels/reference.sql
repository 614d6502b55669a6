-- Every image of the listing by its path alone. The images stay in the source and are read there when a model asks
-- for one, so this takes seconds for a million of them; what cannot be read shows only then.
SELECT pixel_id, source_id, named_struct('bytes', arrow_cast(NULL, 'Binary'), 'path', path) AS image, NULL AS info
FROM listing
