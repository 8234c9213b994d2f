/*
 * Log lines to stderr (or to the descriptor log_set_fd() gave): "nemu: <object>: text".
 *
 * `obj` is the name of the thing that speaks (a device id, a file), never NULL. Any thread;
 * one write(2) per line, so lines of different threads do not mix. What a guest or a peer can
 * trigger goes through log_guest(), which lets 10 lines through per call site and minute and
 * then counts, so a guest cannot fill a disk.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdint.h>

enum log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);
void log_set_fd(int fd);
void log_line(enum log_level level, const char *obj, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define log_err(obj, ...)   log_line(LOG_ERR, obj, __VA_ARGS__)
#define log_warn(obj, ...)  log_line(LOG_WARN, obj, __VA_ARGS__)
#define log_info(obj, ...)  log_line(LOG_INFO, obj, __VA_ARGS__)
#define log_debug(obj, ...) log_line(LOG_DEBUG, obj, __VA_ARGS__)

/* State of one rate-limited call site; zero-initialised, static at the site. */
struct log_limit {
	_Atomic uint64_t window_ns; /* start of the current window */
	_Atomic uint32_t count;	    /* lines asked for in it */
};
void log_limited(struct log_limit *lim, const char *obj, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
#define log_guest(obj, ...)                                                                    \
	do {                                                                                   \
		static struct log_limit log_lim_;                                              \
		log_limited(&log_lim_, obj, __VA_ARGS__);                                      \
	} while (0)

#endif
