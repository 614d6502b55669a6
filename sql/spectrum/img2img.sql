-- The image of each candidate, with everything that went into it.
SELECT
    c.sample_id, c.source_id, c.image_guidance, c.seed, c.attempt, c.prompt, c.noise_seed, c.timesteps,
    $negative_prompt AS negative_prompt, $guidance_scale AS guidance_scale,
    $scheduler AS scheduler, $generator AS generator,
    img2img(p.image, c.prompt, c.image_guidance, c.noise_seed) AS image
FROM candidates c
JOIN pixels p ON p.pixel_id = c.pixel_id
