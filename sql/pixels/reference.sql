-- Every image of the listing, by path only. The images stay in the source and are read when a model needs them, so this
-- takes seconds for a million images. One that cannot be read is noticed only then.
SELECT pixel_id, source_id, named_struct('bytes', arrow_cast(NULL, 'Binary'), 'path', path) AS image, NULL AS info
FROM listing
