-- Every image of the listing, read once and kept in the lake: encoded bytes, as they are in the source.
-- An image that cannot be decoded carries an `error` and becomes a reject.
SELECT pixel_id, source_id, image, image_info(image) AS info
FROM (SELECT pixel_id, source_id, read_image(path) AS image FROM listing)
