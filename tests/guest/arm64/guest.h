/*
 * C runtime of the bare-metal Arm guests.
 */
#ifndef GUEST_ARM64_GUEST_H
#define GUEST_ARM64_GUEST_H

#include <stddef.h>
#include <stdint.h>

#define PSCI_VERSION	  0x84000000u
#define PSCI_CPU_OFF	  0x84000002u
#define PSCI_CPU_ON	  0xc4000003u
#define PSCI_SYSTEM_OFF	  0x84000008u
#define PSCI_SYSTEM_RESET 0x84000009u

/* Of the program: cpu 0 is the boot CPU. */
void guest_main(uint64_t cpu);
extern char secondary[];
extern volatile uint32_t guest_exceptions; /* how many there were, all processors together */

int64_t psci(uint64_t function, uint64_t a, uint64_t b, uint64_t c);
void put(const char *s);
void put_number(uint64_t v);
void put_hex(uint64_t v);
/* A fixed key of fw_cfg, of 16 bits. */
uint16_t fw_cfg_u16(uint16_t key);
/* The name of a file, and its first bytes; how many it has. */
size_t fw_cfg_file(const char *name, void *buf, size_t len);

static inline uint8_t read8(uint64_t a) { return *(volatile uint8_t *)a; }
static inline uint16_t read16(uint64_t a) { return *(volatile uint16_t *)a; }
static inline uint32_t read32(uint64_t a) { return *(volatile uint32_t *)a; }
static inline uint64_t read64(uint64_t a) { return *(volatile uint64_t *)a; }
static inline void write8(uint64_t a, uint8_t v) { *(volatile uint8_t *)a = v; }
static inline void write16(uint64_t a, uint16_t v) { *(volatile uint16_t *)a = v; }
static inline void write32(uint64_t a, uint32_t v) { *(volatile uint32_t *)a = v; }
static inline void write64(uint64_t a, uint64_t v) { *(volatile uint64_t *)a = v; }

#endif
