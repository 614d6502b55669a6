//! Tests on images that Pillow wrote (`tests/fixtures/imaging`), and on broken ones.

use image::RgbaImage;

use super::*;
use crate::imaging::{Filter, resize};

fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imaging").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn load(name: &str) -> RgbImage {
    decode(&fixture(name), &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn largest_difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

#[test]
fn every_kind_of_image_becomes_rgb() {
    let reference = load("rgb.png");
    assert_eq!(reference.dimensions(), (53, 37));
    assert_eq!(reference.get_pixel(3, 2).0, [12, 12, 13]);
    assert_eq!(largest_difference(&load("lossless.webp"), &load("alpha.png")), 0);
    assert_eq!(largest_difference(&load("animated.webp"), &reference), 0, "the first frame");
    for lossy in ["cmyk.jpg", "progressive.jpg", "lossy.webp", "palette.png"] {
        let other = load(lossy);
        let sum: u64 = other.as_raw().iter().zip(reference.as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let mean = sum as f64 / reference.as_raw().len() as f64;
        assert!(mean < 12.0, "{lossy}: mean difference {mean}");
    }
    let grayscale = load("grey16.png");
    assert!(grayscale.pixels().zip(reference.pixels()).all(|(gray, rgb)| gray.0 == [rgb.0[0]; 3]));
}

#[test]
fn transparency_hides_what_lies_under_it() {
    let pixels = [[200, 0, 100, 255], [200, 0, 100, 128], [200, 0, 100, 0]];
    let image = RgbaImage::from_fn(3, 1, |x, _| Rgba(pixels[x as usize]));
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(image.as_raw(), 3, 1, ExtendedColorType::Rgba8).unwrap();
    let over = |color| decode_over(&png, &Limits::default(), color).unwrap().into_raw();
    assert_eq!(over(WHITE), [200, 0, 100, 227, 127, 177, 255, 255, 255]);
    assert_eq!(over([0, 10, 20]), [200, 0, 100, 100, 5, 60, 0, 10, 20]);
}

#[test]
fn every_truncated_file_is_an_error() {
    for name in ["rgb.png", "progressive.jpg", "cmyk.jpg", "lossy.webp", "lossless.webp", "palette.png"] {
        let bytes = fixture(name);
        for length in 0..bytes.len() {
            assert!(info(&bytes[..length], &Limits::default()).is_err(), "{name} cut to {length} bytes");
        }
        assert!(info(&bytes, &Limits::default()).is_ok(), "{name}");
    }
}

#[test]
fn flipped_bytes_never_panic() {
    for name in ["rgb.png", "progressive.jpg", "lossy.webp", "lossless.webp"] {
        let bytes = fixture(name);
        for at in (0..bytes.len()).step_by(7) {
            let mut broken = bytes.clone();
            broken[at] ^= 0xa5;
            let _ = decode(&broken, &Limits::default());
        }
    }
}

#[test]
fn messages_state_what_is_wrong() {
    let message = |bytes: &[u8]| decode(bytes, &Limits::default()).unwrap_err().to_string();
    assert_eq!(message(b""), "the file is empty");
    assert_eq!(message(b"hello there\n"), "not an image: it looks like `text`");
    assert_eq!(
        message(b"<!doctype html><p>404"),
        "not an image: it is an HTML page; download the file again, from the link of the file itself, and logged in if \
         it needs that"
    );
    assert_eq!(
        message(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"),
        "not an image: it is a Git LFS pointer; run `git lfs install` and `git lfs pull` in the repository, or download \
         the file by itself"
    );
    assert_eq!(message(b"%PDF-1.7"), "not an image: it looks like a pdf document");
    assert_eq!(message(&[0, 1, 2, 3]), "not an image: it looks like binary data of unknown kind");
    assert_eq!(
        message(b"\0\0\0\x1cftypheic...."),
        "the image format `heic` is not supported; supported are `png`, `jpeg`, `webp`, `gif`, `bmp` and `tiff`"
    );
    assert_eq!(message(&fixture("rgb.png")[..100]), "the `png` image is truncated or corrupt");
}

#[test]
fn limits_are_checked_against_the_header() {
    let png = fixture("rgb.png");
    let refused = |limits: Limits| decode(&png, &limits).unwrap_err().to_string();
    let limits = Limits::default();
    assert_eq!(
        refused(Limits { max_pixels: 1000, ..limits }),
        "the image is 53 x 37 pixels, more than the limit of 1000 pixels"
    );
    assert_eq!(refused(Limits { max_side: 52, ..limits }), "the image is 53 x 37 pixels; a side may have at most 52");
    assert_eq!(
        refused(Limits { max_bytes: 10, ..limits }),
        format!("the file has {} bytes, more than the limit of 10", png.len())
    );
}

#[test]
fn info_describes_the_contents() {
    let png = fixture("rgb.png");
    let info = info(&png, &Limits::default()).unwrap();
    assert_eq!((info.width, info.height, info.format), (53, 37, "png"));
    assert_eq!(info.digest.len(), 64);
}

#[test]
fn png_is_lossless_and_deterministic() {
    let image = load("rgb.png");
    let png = encode_png(&image).unwrap();
    assert_eq!(png, encode_png(&image).unwrap());
    assert_eq!(decode(&png, &Limits::default()).unwrap(), image);
}

#[test]
fn resizing_equals_pillows() {
    let image = load("rgb.png");
    for (name, filter) in [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic), ("lanczos", Filter::Lanczos)] {
        for (width, height) in [(20, 16), (64, 80)] {
            let pillow = load(&format!("{name}_{width}x{height}.png"));
            let ours = resize(&image, width, height, filter).unwrap();
            assert!(largest_difference(&ours, &pillow) <= 1, "{name} {width}x{height}");
        }
    }
}

/// Returns a PNG with these chunks between its header and its end.
fn png(width: u32, height: u32, chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", header)].iter().chain(chunks).chain(&[(b"IEND", Vec::new())]) {
        let body = [&kind[..], data].concat();
        let crc = !body.iter().fold(!0_u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        png.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        png.extend(body);
        png.extend(crc.to_be_bytes());
    }
    png
}

/// Returns the compressed pixels of an image.
fn pixels(image: &RgbImage) -> Vec<u8> {
    let bytes = encode_png(image).unwrap();
    let (mut rest, mut pixels) = (&bytes[8..], Vec::new());
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if tail.starts_with(b"IDAT") {
            pixels.extend(&tail[4..4 + length]);
        }
        rest = &tail[8 + length..];
    }
    pixels
}

#[test]
fn a_huge_image_in_a_small_file_is_rejected_by_its_header() {
    let refused = |bytes: &[u8]| decode(bytes, &Limits::default()).unwrap_err().to_string();
    let small = pixels(&RgbImage::new(1, 1));
    assert_eq!(
        refused(&png(60_000, 60_000, &[(b"IDAT", small.clone())])),
        "the image is 60000 x 60000 pixels; a side may have at most 16384"
    );
    assert_eq!(
        refused(&png(16_384, 16_384, &[(b"IDAT", small.clone())])),
        "the image is 16384 x 16384 pixels, more than the limit of 67108864 pixels"
    );
    // Within the limits, but without the pixels.
    assert_eq!(refused(&png(8192, 8192, &[(b"IDAT", small)])), "the `png` image is truncated or corrupt");
}

/// 48 MiB of zeros each: the decoder neither keeps the text nor fails on it.
#[test]
fn chunks_that_inflate_are_ignored() {
    let zeros = pixels(&RgbImage::new(4096, 4096));
    let image = RgbImage::from_pixel(3, 2, image::Rgb([7, 8, 9]));
    for (kind, name) in [(b"zTXt", &b"Comment\0\0"[..]), (b"iCCP", b"icc\0\0"), (b"iTXt", b"Comment\0\x01\0\0\0")] {
        let chunk = [name, &zeros].concat();
        let bomb = png(3, 2, &[(kind, chunk), (b"IDAT", pixels(&image))]);
        match decode(&bomb, &Limits::default()) {
            Ok(decoded) => assert_eq!(decoded, image, "{}", String::from_utf8_lossy(kind)),
            Err(error) => assert!(matches!(error, ImageError::Corrupt { .. }), "{error}"),
        }
    }
}

#[test]
fn the_first_of_many_frames_is_decoded() {
    // WebP: repeats the fixture's second frame ten thousand times.
    let webp = fixture("animated.webp");
    let frames: Vec<usize> = (0..webp.len() - 4).filter(|&at| &webp[at..at + 4] == b"ANMF").collect();
    let frame = &webp[frames[1]..frames.get(2).copied().unwrap_or(webp.len())];
    let mut long = [&webp[..], &frame.repeat(10_000)].concat();
    let length = u32::try_from(long.len() - 8).unwrap();
    long[4..8].copy_from_slice(&length.to_le_bytes());
    assert_eq!(decode(&long, &Limits::default()).unwrap(), load("animated.webp"));
    // APNG: declares a hundred thousand frames.
    let image = RgbImage::from_pixel(3, 2, image::Rgb([7, 8, 9]));
    let control = [0_u32, 3, 2, 0, 0].iter().flat_map(|number| number.to_be_bytes()).chain([0, 1, 0, 100, 0, 0]);
    let chunks = [
        (b"acTL", [100_000_u32.to_be_bytes(), [0; 4]].concat()),
        (b"fcTL", control.collect()),
        (b"IDAT", pixels(&image)),
    ];
    assert_eq!(decode(&png(3, 2, &chunks), &Limits::default()).unwrap(), image);
}
