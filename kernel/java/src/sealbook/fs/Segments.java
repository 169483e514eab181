package sealbook.fs;

/** Where byte N of the plaintext lies; as in sealbook/sealing/segments.py, which see. */
final class Segments {
  static final String ALGORITHM = "AES256-GCM-HKDF-1MB";

  /** Bytes of one ciphertext segment, tag (and in segment 0 the stream header) included. */
  static final int SEGMENT = 1 << 20;

  static final int TAG = 16;
  static final int SALT = 32;
  static final int NONCE_PREFIX = 7;

  /** One length byte, salt, nonce prefix. */
  static final int STREAM_HEADER = 1 + SALT + NONCE_PREFIX;

  /** Plaintext bytes of segment 0 and of every other segment when full. */
  static final int FIRST = SEGMENT - STREAM_HEADER - TAG;

  static final int REST = SEGMENT - TAG;

  /** The segment counter in the nonce has 32 bits. */
  static final long MAX_SEGMENTS = 1L << 32;

  private Segments() {}

  /** How many segments hold that many bytes of plaintext; an empty one has one. */
  static long count(long plainSize) {
    return plainSize <= FIRST ? 1 : 1 + (plainSize - FIRST + REST - 1) / REST;
  }

  /** The bytes of stream header and segments for that many bytes of plaintext. */
  static long streamSize(long plainSize) {
    return STREAM_HEADER + plainSize + TAG * count(plainSize);
  }

  /** The plaintext bytes in a stream of that length, -1 if no stream is that long. */
  static long plainSize(long stream) {
    long count = Math.floorDiv(stream + SEGMENT - 1, SEGMENT);
    long size = stream - STREAM_HEADER - TAG * count;
    return size < 0 || count > MAX_SEGMENTS || streamSize(size) != stream ? -1 : size;
  }

  /** The plaintext offset at which a segment begins. */
  static long plainStart(long index) {
    return index == 0 ? 0 : FIRST + (index - 1) * REST;
  }

  /** The segment that holds that plaintext byte. */
  static long at(long offset) {
    return offset < FIRST ? 0 : 1 + (offset - FIRST) / REST;
  }

  /** The stream offset of a segment's ciphertext. */
  static long cipherStart(long index) {
    return index == 0 ? STREAM_HEADER : index * SEGMENT;
  }
}
