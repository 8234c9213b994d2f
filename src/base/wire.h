/*
 * Integers as they stand in guest memory, files and messages. Each is a struct, so a missed
 * conversion does not compile. Little-endian hosts only (x86-64 and AArch64 both are).
 */
#ifndef BASE_WIRE_H
#define BASE_WIRE_H

#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "NEMU needs a little-endian host");

typedef struct { uint16_t raw; } __attribute__((packed)) le16;
typedef struct { uint32_t raw; } __attribute__((packed)) le32;
typedef struct { uint64_t raw; } __attribute__((packed)) le64;
typedef struct { uint16_t raw; } __attribute__((packed)) be16;
typedef struct { uint32_t raw; } __attribute__((packed)) be32;
typedef struct { uint64_t raw; } __attribute__((packed)) be64;

static inline uint16_t le16_get(le16 v) { return v.raw; }
static inline uint32_t le32_get(le32 v) { return v.raw; }
static inline uint64_t le64_get(le64 v) { return v.raw; }
static inline le16 le16_of(uint16_t v) { return (le16){v}; }
static inline le32 le32_of(uint32_t v) { return (le32){v}; }
static inline le64 le64_of(uint64_t v) { return (le64){v}; }
static inline uint16_t be16_get(be16 v) { return __builtin_bswap16(v.raw); }
static inline uint32_t be32_get(be32 v) { return __builtin_bswap32(v.raw); }
static inline uint64_t be64_get(be64 v) { return __builtin_bswap64(v.raw); }
static inline be16 be16_of(uint16_t v) { return (be16){__builtin_bswap16(v)}; }
static inline be32 be32_of(uint32_t v) { return (be32){__builtin_bswap32(v)}; }
static inline be64 be64_of(uint64_t v) { return (be64){__builtin_bswap64(v)}; }

#endif
