//! Pixels: small images inside an SVG, and whole figures as PNG.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg;
use spdflow_engine::kind::StageError;

use super::color::Rgb;

/// Pixels per point of an exported PNG: 200 per inch.
const PIXELS_PER_POINT: f32 = 200.0 / 72.0;

/// Returns the figure in `svg` as the bytes of a PNG file.
///
/// # Errors
/// [`StageError::Failed`] if the document cannot be drawn.
pub(super) fn to_png(svg: &str) -> Result<Vec<u8>, StageError> {
    let failed = |error: String| StageError::failed(format!("figure cannot be drawn as PNG: {error}"));
    // One point of the document becomes one unit: 72 units per inch instead of the 96 of screens.
    let options = usvg::Options { dpi: 72.0, ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| failed(error.to_string()))?;
    let pixels = |length: f32| (length * PIXELS_PER_POINT).ceil() as u32;
    let (width, height) = (pixels(tree.size().width()), pixels(tree.size().height()));
    let mut pixmap =
        Pixmap::new(width, height).ok_or_else(|| failed(format!("{width} x {height} pixels do not fit in memory")))?;
    // The last row and column may be covered in part only.
    pixmap.fill(resvg::tiny_skia::Color::WHITE);
    resvg::render(&tree, Transform::from_scale(PIXELS_PER_POINT, PIXELS_PER_POINT), &mut pixmap.as_mut());
    // All pixels are opaque, so colours need no alpha.
    let pixels: Vec<u8> = pixmap.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    encode(width, height, &pixels).map_err(|error| failed(error.to_string()))
}

/// Returns a PNG file of RGB pixels that prints at its size in points.
///
/// Without prediction filters: on flat drawings the file is smaller and made four times as fast.
fn encode(width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_filter(png::Filter::NoFilter);
    let per_metre = (f64::from(PIXELS_PER_POINT) * 72.0 / 0.0254).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: per_metre, yppu: per_metre, unit: png::Unit::Meter }));
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

/// Returns an image with one pixel per colour as a `data:` address.
///
/// # Panics
/// If there are not `rows * cols` colours.
pub(super) fn data_uri(rows: usize, cols: usize, colors: &[Rgb]) -> String {
    assert_eq!(colors.len(), rows * cols, "colours of a {rows} x {cols} image");
    let size = |length: usize| u32::try_from(length).expect("an image side below 2^32");
    let pixels: Vec<u8> = colors.iter().flat_map(|color| [color.0, color.1, color.2]).collect();
    let bytes = encode(size(cols), size(rows), &pixels).expect("writing a small image to memory");
    format!("data:image/png;base64,{}", base64(&bytes))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = (word >> (18 - 6 * i)) & 63;
            text.push(if i <= chunk.len() { char::from(DIGITS[digit as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_agrees_with_the_examples_of_rfc_4648() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
