//! QR codes: on a terminal, as a PNG image, as SVG for a page.

use crate::daemon::control::Failure;
use png::{BitDepth, ColorType, Encoder};
use qrcode::render::unicode::Dense1x2;
use qrcode::{Color, QrCode};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Modules of light around a code (ISO/IEC 18004).
const QUIET: usize = 4;
/// Pixels of a module in an image: large enough to be printed.
const PIXELS: usize = 8;

/// The code of a text.
pub struct Code(QrCode);

impl Code {
    /// Upper case fits the alphanumeric mode of codes, which is a third smaller; readers of links do not care.
    pub fn of(text: &str) -> Result<Code, Failure> {
        let upper = Zeroizing::new(text.to_uppercase());
        let code = QrCode::new(upper.as_bytes());
        code.map(Code).map_err(|error| Failure::failed(format!("no QR code: {error}")))
    }

    /// In half blocks, for a terminal.
    pub fn terminal(&self) -> String {
        // Light modules and the quiet zone are what is drawn: on a dark terminal that is a code as printed on paper.
        let mut code = self.0.render::<Dense1x2>();
        let picture = code.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
        picture + "\n"
    }

    /// In half blocks, for black on white paper.
    pub fn paper(&self) -> String {
        self.0.render::<Dense1x2>().build() + "\n"
    }

    /// As the bytes of a PNG image, black on white.
    pub fn png(&self) -> Result<Vec<u8>, Failure> {
        let modules = self.modules();
        let side = modules.len() * PIXELS;
        let mut pixels = Vec::with_capacity(side * side.div_ceil(8));
        for row in &modules {
            let mut line = vec![0u8; side.div_ceil(8)];
            for x in (0..side).filter(|x| !row[x / PIXELS]) {
                line[x / 8] |= 0x80 >> (x % 8);
            }
            (0..PIXELS).for_each(|_| pixels.extend_from_slice(&line));
        }
        let side =
            u32::try_from(side).map_err(|_| Failure::failed("the QR code is too large for an image"))?;
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, side, side);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_depth(BitDepth::One);
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
        written.map_err(|error| Failure::failed(format!("no image of the QR code: {error}")))?;
        Ok(bytes)
    }

    /// As an SVG element, black on white, one unit a module.
    pub fn svg(&self) -> String {
        let modules = self.modules();
        let side = modules.len();
        let mut path = String::new();
        for (y, row) in modules.iter().enumerate() {
            let mut x = 0;
            while x < side {
                let width = row[x..].iter().take_while(|dark| **dark).count();
                if width > 0 {
                    path.push_str(&format!("M{x} {y}h{width}v1h-{width}z"));
                }
                x += width.max(1);
            }
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\"><path fill=\"#fff\" d=\"M0 0h{side}v{side}H0z\"/><path d=\"{path}\"/></svg>"
        )
    }

    /// Rows of modules, true where dark, with the quiet zone.
    fn modules(&self) -> Vec<Vec<bool>> {
        let (colors, width) = (self.0.to_colors(), self.0.width());
        let dark = |x: usize, y: usize| {
            let inside = (QUIET..QUIET + width).contains(&x) && (QUIET..QUIET + width).contains(&y);
            inside && colors[(y - QUIET) * width + x - QUIET] == Color::Dark
        };
        let side = width + 2 * QUIET;
        (0..side).map(|y| (0..side).map(|x| dark(x, y)).collect()).collect()
    }
}

/// Writes a file that holds a secret: it must not exist yet, and only its owner can read it.
pub fn write_private(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| {
        let hint =
            if error.kind() == io::ErrorKind::AlreadyExists { ": remove it, or name another" } else { "" };
        Failure::failed(format!("cannot write {}: {error}{hint}", file.display()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn link() -> String {
        format!("kilofs:admin:{}", "a2b3".repeat(65))
    }

    #[test]
    fn a_long_link_still_fits_a_code_on_a_terminal() {
        let code = Code::of(&link()).unwrap().terminal();
        assert!(code.lines().all(|line| line.chars().count() <= 80), "{code}");
        assert!(code.contains('█'));
    }

    /// What a camera would read in a picture of grey values.
    fn read(width: usize, height: usize, dark: impl Fn(usize, usize) -> bool) -> String {
        let grey = |x, y| if dark(x, y) { 0 } else { 255 };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, grey);
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1.to_lowercase()
    }

    #[test]
    fn the_image_reads_as_the_link() {
        let bytes = Code::of(&link()).unwrap().png().unwrap();
        let mut reader = png::Decoder::new(io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (ColorType::Grayscale, BitDepth::One));
        let dark = |x: usize, y: usize| pixels[y * info.line_size + x / 8] & (0x80 >> (x % 8)) == 0;
        assert_eq!(read(info.width as usize, info.height as usize, dark), link());
        assert!(!dark(QUIET * PIXELS - 1, info.height as usize / 2) && dark(QUIET * PIXELS, QUIET * PIXELS));
    }

    #[test]
    fn what_is_drawn_on_paper_reads_as_the_link() {
        let code = Code::of(&link()).unwrap().paper();
        let rows: Vec<Vec<char>> = code.lines().map(|line| line.chars().collect()).collect();
        let dark = |x: usize, y: usize| match rows[y / 2][x] {
            '█' => true,
            '▀' => y.is_multiple_of(2),
            '▄' => !y.is_multiple_of(2),
            _ => false,
        };
        // As large as letters are on paper.
        let scale = 6;
        let (width, height) = (rows[0].len() * scale, rows.len() * 2 * scale);
        assert_eq!(read(width, height, |x, y| dark(x / scale, y / scale)), link());
    }

    #[test]
    fn the_drawing_has_the_same_modules() {
        let code = Code::of(&link()).unwrap();
        let svg = code.svg();
        let path = svg.rsplit("d=\"").next().unwrap().split('"').next().unwrap();
        let mut drawn = vec![vec![false; code.modules().len()]; code.modules().len()];
        for run in path.split('M').skip(1) {
            let numbers: Vec<usize> =
                run.split([' ', 'h', 'v']).take(3).map(|number| number.parse().unwrap()).collect();
            drawn[numbers[1]][numbers[0]..][..numbers[2]].fill(true);
        }
        assert!(drawn == code.modules());
    }

    #[test]
    fn a_private_file_is_never_written_over() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("code.png");
        write_private(&file, b"one").unwrap();
        assert!(write_private(&file, b"two").unwrap_err().message.contains("remove it"));
        assert_eq!(std::fs::read(&file).unwrap(), b"one");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
