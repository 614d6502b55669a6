-- The real images that could be read: what the listing says of each, and what its pixels say. One that is only referred
-- to is known by its path and the version of its file, and not by its content.
SELECT
    l.source_id, l.pixel_id, l.path, l.label, l.class_name, l.split,
    p.info['width'] AS width, p.info['height'] AS height,
    p.info['format'] AS format, coalesce(p.info['digest'], l.pixel_id) AS digest
FROM listing l
JOIN pixels p ON p.pixel_id = l.pixel_id
