//! How many tokens a text has, without anybody's vocabulary. The numbers are fitted to the built-in model's tokenizer, which
//! makes more tokens of most texts than those of larger models do; see `docs/adr/0013`.

use text_splitter::ChunkSizer;

/// Hundredths of a token, so that sums are exact.
type Hundredths = usize;

/// Of a sign, a letter of a script that is not Latin, an ideograph.
const CHARACTER: Hundredths = 100;
/// Of a Korean syllable, which some models take apart.
const HANGUL: Hundredths = 200;
/// Of an emoji and of what else takes four bytes.
const FOUR_BYTES: Hundredths = 300;
/// Of each blank after another one. A single one between words is part of the next word. So that a chunk has few bytes, also
/// where a text has hardly anything else.
const FURTHER_BLANK: Hundredths = 25;

/// The words by which English is known; there is one among the next four or five of any prose.
const ENGLISH: [&str; 31] = [
    "the", "of", "and", "to", "a", "in", "is", "for", "that", "it", "on", "with", "as", "are", "this", "be",
    "or", "by", "an", "from", "can", "you", "not", "which", "has", "was", "at", "have", "its", "but", "they",
];
/// A text is English if there is one of them among so many words.
const WORDS_PER_ENGLISH_ONE: usize = 8;

/// Estimates tokens. Vocabularies know English words as a whole and others in parts, so it first looks at the whole text.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    is_english: bool,
}

impl Estimate {
    /// For a text and all parts of it.
    pub fn of(text: &str) -> Self {
        let (mut words, mut english) = (0_usize, 0_usize);
        for word in text.split(|c| !is_latin(c)).filter(|word| !word.is_empty()) {
            words += 1;
            english += usize::from(ENGLISH.iter().any(|known| known.eq_ignore_ascii_case(word)));
        }
        Self { is_english: english * WORDS_PER_ENGLISH_ONE >= words }
    }

    /// Tokens of `text`, without those that a model adds at its ends.
    pub fn tokens(self, text: &str) -> usize {
        let mut total: Hundredths = 0;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if is_latin(c) || c.is_ascii_digit() {
                let mut word = Word::beginning_with(c);
                while let Some(c) = chars.next_if(|c| is_latin(*c) || c.is_ascii_digit()) {
                    word.add(c);
                }
                total += word.cost(self.is_english);
            } else if c.is_whitespace() {
                while chars.next_if(|c| c.is_whitespace()).is_some() {
                    total += FURTHER_BLANK;
                }
            } else {
                total += match c {
                    '\u{ac00}'..='\u{d7a3}' => HANGUL,
                    '\u{10000}'.. => FOUR_BYTES,
                    _ => CHARACTER,
                };
            }
        }
        total.div_ceil(100)
    }
}

impl ChunkSizer for Estimate {
    fn size(&self, chunk: &str) -> usize {
        self.tokens(chunk)
    }
}

fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic()
        || (matches!(c, '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}') && c.is_alphabetic())
}

/// Latin letters and digits without anything between them.
struct Word {
    letters: usize,
    digits: usize,
    /// A capital behind the first letter: a name or an abbreviation, which is in no vocabulary.
    has_inner_capital: bool,
}

impl Word {
    fn beginning_with(c: char) -> Self {
        let digits = usize::from(c.is_ascii_digit());
        Self { letters: 1 - digits, digits, has_inner_capital: false }
    }

    fn add(&mut self, c: char) {
        if c.is_ascii_digit() {
            self.digits += 1;
        } else {
            self.letters += 1;
            self.has_inner_capital |= c.is_uppercase();
        }
    }

    fn cost(&self, is_english: bool) -> Hundredths {
        match (self.letters, self.digits) {
            (0, digits) => 50 + 50 * digits,
            (letters, 1..) => 65 * (letters + self.digits),
            (letters, 0) if !is_english => 65 + 35 * letters,
            (letters, 0) if self.has_inner_capital => 100 + 45 * letters,
            (..=4, 0) => 120,
            (..=8, 0) => 155,
            (..=12, 0) => 200,
            (letters, 0) => 35 * letters,
        }
    }
}

#[cfg(feature = "builtin-embedder")]
#[cfg(test)]
mod tests {
    use embedder::{Embedder, Options, TOKENS_MAX};
    use serde_json::Value;
    use text_splitter::{ChunkConfig, TextSplitter};

    use super::*;

    const SAMPLES: [(&str, &str); 23] = [
        (
            "German",
            "Die Rechnung für den dritten Monat ist noch nicht bezahlt, weil der Lieferant die \
          Versandbestätigung erst gestern geschickt hat. Bitte prüfen Sie die Unterlagen und geben Sie \
          der Buchhaltung Bescheid, damit die Überweisung rechtzeitig ausgeführt wird.",
        ),
        (
            "French",
            "Le client préfère recevoir ses messages le matin, avant neuf heures, et il a demandé qu'on \
          ne l'appelle jamais pendant les vacances. Il faudra donc reporter la réunion à la semaine \
          prochaine et prévenir toute l'équipe dès aujourd'hui.",
        ),
        (
            "Spanish",
            "La reunión con los proveedores quedó aplazada hasta el jueves porque faltaban los informes \
          de calidad. El departamento técnico enviará mañana una propuesta nueva, con los precios \
          actualizados y un calendario más realista.",
        ),
        (
            "Portuguese",
            "O utilizador pediu que as notificações fossem enviadas apenas aos dias úteis e que o resumo \
          semanal incluísse os gráficos de consumo. A próxima versão do relatório será publicada na \
          segunda-feira.",
        ),
        (
            "Italian",
            "Il magazzino ha ricevuto le scatole sbagliate e le ha già rispedite al fornitore. Nel \
          frattempo i clienti più importanti sono stati avvisati del ritardo, e la consegna è prevista \
          per la fine del mese.",
        ),
        (
            "Dutch",
            "De vergadering over de nieuwe verzekeringsvoorwaarden is verplaatst naar donderdagmiddag. \
          Neem alstublieft de bijgewerkte berekeningen mee, want de afdeling wil nog voor het weekend \
          een beslissing nemen.",
        ),
        (
            "Polish",
            "Klient poprosił o przesunięcie terminu dostawy, ponieważ jego magazyn jest w remoncie do \
          końca miesiąca. Prosimy o potwierdzenie nowej daty oraz o przesłanie poprawionej faktury na \
          podany adres.",
        ),
        (
            "Finnish",
            "Asiakas haluaa, että kuukausittaiset yhteenvedot lähetetään hänelle sähköpostitse ja että \
          kokousmuistiot tallennetaan yhteiseen kansioon. Seuraava tapaaminen pidetään lokakuun \
          ensimmäisenä perjantaina.",
        ),
        (
            "Turkish",
            "Müşteri, siparişinin gecikmesinden dolayı özür beklediğini ve bir sonraki alışverişinde \
          indirim istediğini söyledi. Lütfen muhasebe bölümüne haber verin ve faturayı yeniden \
          düzenleyin.",
        ),
        (
            "Vietnamese",
            "Khách hàng muốn nhận thông báo qua thư điện tử vào mỗi buổi sáng và không muốn bị gọi điện \
          vào cuối tuần. Cuộc họp tiếp theo sẽ diễn ra vào thứ năm tại văn phòng mới của công ty.",
        ),
        (
            "Russian",
            "Заказчик попросил перенести встречу на следующую неделю, потому что отчёт о качестве ещё не \
          готов. Пожалуйста, сообщите об этом всем участникам и отправьте им новую повестку дня до \
          конца рабочего дня.",
        ),
        (
            "Greek",
            "Ο πελάτης ζήτησε να αναβληθεί η παράδοση μέχρι την επόμενη εβδομάδα, επειδή η αποθήκη του \
          είναι κλειστή. Παρακαλούμε να ενημερώσετε το λογιστήριο και να στείλετε νέο τιμολόγιο.",
        ),
        (
            "Arabic",
            "طلب العميل تأجيل الاجتماع إلى الأسبوع القادم لأن التقرير لم يكتمل بعد. يرجى إبلاغ جميع \
          المشاركين وإرسال جدول الأعمال الجديد قبل نهاية اليوم.",
        ),
        (
            "Hebrew",
            "הלקוח ביקש לדחות את הפגישה לשבוע הבא משום שהדוח עדיין לא מוכן. נא להודיע לכל המשתתפים ולשלוח \
          להם סדר יום חדש עד סוף היום.",
        ),
        (
            "Hindi",
            "ग्राहक ने बैठक को अगले सप्ताह तक टालने का अनुरोध किया है क्योंकि रिपोर्ट अभी तैयार नहीं है। \
          कृपया सभी प्रतिभागियों को सूचित करें और नया कार्यक्रम भेजें।",
        ),
        (
            "Thai",
            "ลูกค้าขอเลื่อนการประชุมไปสัปดาห์หน้าเพราะรายงานยังไม่เสร็จ \
          กรุณาแจ้งผู้เข้าร่วมทุกคนและส่งวาระการประชุมใหม่ก่อนสิ้นวัน",
        ),
        (
            "Chinese",
            "客户要求把会议推迟到下周，因为质量报告还没有完成。请通知所有参加者，并在今天下班之前把新的议程发给他们。如果有问题，请直接联系项目经理。",
        ),
        (
            "Japanese",
            "お客様から、品質報告書がまだ完成していないため、会議を来週に延期してほしいとの依頼がありました。参加者全員に連絡し、本日中に新しい議題を送付してください。",
        ),
        (
            "Korean",
            "고객이 품질 보고서가 아직 준비되지 않았기 때문에 회의를 다음 주로 연기해 달라고 요청했습니다. 모든 참석자에게 알리고 오늘 안으로 새로운 안건을 보내 주세요.",
        ),
        (
            "Emoji",
            "Great news 🎉🎉 the release is out 🚀 and everyone is happy 😀😃😄😁 👨‍👩‍👧‍👦 see you tomorrow 👋🏽 ❤️",
        ),
        (
            "Code",
            "let mut total = 0_u64; for (index, value) in values.iter().enumerate() { total += \
          value.checked_mul(index as u64)?; } println!(\"{total:>8} of {}\", values.len()); // \
          0xDEADBEEF",
        ),
        (
            "Numbers",
            "2026-11-21T10:58:03Z 192.168.178.21 4711 3.1415926535 1,234,567.89 +49 170 1234567 \
          550e8400-e29b-41d4-a716-446655440000 9f86d081884c7d659a2feaa0c55ad015",
        ),
        (
            "Json",
            "{\"id\": 17, \"tags\": [\"use::gameplaying\", \"x11::application\"], \"size_kb\": 28591, \"ratio\": \
          0.1875, \"path\": \"/usr/share/doc/0ad/changelog.gz\", \"ok\": true}",
        ),
    ];

    /// Counts as the built-in model does, without the two tokens at the ends of a text.
    fn counter() -> impl Fn(&str) -> usize {
        let model = Embedder::new(Options::default()).unwrap();
        move |text| model.count_tokens(text).unwrap() - 2
    }

    fn examples() -> Vec<String> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/packages.ndjson");
        let lines = std::fs::read_to_string(path).unwrap();
        let text = |line| serde_json::from_str::<Value>(line).unwrap()["text"].as_str().unwrap().to_owned();
        lines.lines().map(text).collect()
    }

    #[test]
    fn english_is_hardly_ever_estimated_too_low_and_not_much_too_high() {
        let count = counter();
        let (mut ratios, mut too_low) = (Vec::new(), 0);
        for text in examples() {
            let (estimated, counted) = (Estimate::of(&text).tokens(&text), count(&text));
            too_low += usize::from(estimated < counted);
            ratios.push(estimated as f64 / counted as f64);
        }
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        assert!(ratios.len() >= 2_000 && too_low * 100 <= ratios.len(), "{too_low} of {}", ratios.len());
        assert!(mean <= 1.35, "{mean}");
    }

    #[test]
    fn chunks_of_english_are_hardly_ever_longer_than_the_model_reads_and_mostly_full() {
        let count = counter();
        let text = examples().join("\n\n");
        let splitter = TextSplitter::new(ChunkConfig::new(TOKENS_MAX - 2).with_sizer(Estimate::of(&text)));
        let counted: Vec<usize> = splitter.chunks(&text).map(|chunk| count(chunk) + 2).collect();
        let too_long = counted.iter().filter(|tokens| **tokens > TOKENS_MAX).count();
        assert!(counted.len() > 1_000 && too_long * 100 <= counted.len(), "{too_long} of {}", counted.len());
        let mean = counted.iter().sum::<usize>() / counted.len();
        assert!(mean > TOKENS_MAX / 2, "{mean}");
    }

    #[test]
    fn other_languages_and_what_is_no_language_are_not_estimated_too_low() {
        let count = counter();
        for (name, text) in SAMPLES {
            let (estimated, counted) = (Estimate::of(text).tokens(text), count(text));
            assert!(estimated >= counted, "{name}: {estimated} instead of {counted}");
        }
    }

    #[test]
    fn what_is_no_word_counts_too() {
        let tokens = |text: &str| Estimate::of(text).tokens(text);
        assert_eq!([tokens(""), tokens(" \n"), tokens("2026"), tokens("...")], [0, 1, 3, 3]);
        assert_eq!([tokens("語語"), tokens("한"), tokens("😀"), tokens("a1b2")], [2, 2, 3, 3]);
    }
}
