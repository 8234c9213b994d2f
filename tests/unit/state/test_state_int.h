/*
 * The structure that the tests of state/ save and load: one field of each kind, nested twice.
 */
#ifndef TEST_STATE_INT_H
#define TEST_STATE_INT_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after those above, which it needs */
#include <cmocka.h>

#include "base/util.h"
#include "state/state_int.h"

struct ring_state {
	uint16_t size;
	bool ready;
	uint64_t desc;
};
struct dev_state {
	uint8_t status;
	uint16_t vector;
	uint32_t features;
	uint64_t offset;
	bool broken;
	uint8_t mac[6];
	uint32_t fifo_len;
	uint8_t fifo[16];
	struct ring_state ctrl;
	struct ring_state ring[2];
	uint32_t nreq;
	struct ring_state req[4];
	uint32_t added; /* since version 3 */
};

extern const struct state_desc ring_desc;
extern const struct state_desc dev_desc;

/* A structure with every field in use. */
void dev_state_fill(struct dev_state *st);
bool dev_state_equal(const struct dev_state *a, const struct dev_state *b);
/* What every decoded structure must satisfy, whatever the bytes were. */
void dev_state_assert_sound(const struct dev_state *st);

/* A malloc'ed copy, so that ASAN sees every byte read past the end. */
uint8_t *bytes_copy(const void *data, size_t len);
/* The finished stream of one structure under the instance "d0"; free() it. */
uint8_t *stream_of(const struct dev_state *st, size_t *len);
/* Makes the checksum right again. */
void stream_fix_crc(uint8_t *data, size_t len);
/* Opens a stream and gets the structure: 0 or -errno of whichever failed. */
int stream_load(const uint8_t *data, size_t len, struct dev_state *st, struct err *err);

/* Writes a stream by hand. */
struct raw {
	uint8_t data[8192];
	size_t len;
	unsigned nsections;
};
void raw_put(struct raw *r, const void *data, size_t len);
void raw_u8(struct raw *r, uint8_t v);
void raw_u16(struct raw *r, uint16_t v);
void raw_u32(struct raw *r, uint32_t v);
void raw_u64(struct raw *r, uint64_t v);
void raw_start(struct raw *r);
/* A section with the payload given, whose head claims `claim` bytes. */
void raw_section(struct raw *r, uint8_t kind, const char *name, const char *instance,
		 const void *payload, size_t len, uint64_t claim);
void raw_end(struct raw *r);
void raw_record(struct raw *r, uint32_t version, uint16_t nfields);
void raw_field(struct raw *r, uint8_t type, const char *name, const void *value, uint32_t len);
/* The same for a scalar of `size` bytes. */
void raw_scalar(struct raw *r, uint8_t type, const char *name, uint64_t v, uint32_t size);

#endif
