/*
 * A file that may be packed with gzip (RFC 1952), read from its beginning as what is in it. Not
 * thread-safe. Untrusted: the file; how much comes out is the caller's to limit.
 */
#ifndef BASE_GUNZIP_H
#define BASE_GUNZIP_H

#include <stddef.h>
#include <sys/types.h>

struct gunzip;
/* fd stays the caller's. -ENOMEM, or what reading says. */
int gunzip_open(int fd, struct gunzip **out);
void gunzip_close(struct gunzip *g);
/* Bytes read, less than len only at the end; -EINVAL: damaged, or cut off; -EIO and the like. */
ssize_t gunzip_read(struct gunzip *g, void *buf, size_t len);

#endif
