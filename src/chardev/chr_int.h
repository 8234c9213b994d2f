/* Between the files of chardev/: the stream core (chr.c) and what opens the kinds (open.c). */
#ifndef CHARDEV_CHR_INT_H
#define CHARDEV_CHR_INT_H

#include <termios.h>

#include "chardev/chr.h"

enum chr_kind { CHR_NULL, CHR_STDIO, CHR_PTY, CHR_FILE, CHR_SOCKET };

struct chr {
	enum chr_kind kind;
	char id[64];
	char where[160];  /* what chr_describe() shows */
	struct loop *loop;
	bool attached;
	struct chr_client client;

	int rfd, wfd;     /* -1: none; may be equal */
	bool connected;
	bool want_read, want_write, eof;
	bool wfd_gone;    /* stdio: nobody reads our output any more */
	bool rd_poll, wr_poll; /* the descriptor can be waited for (files and /dev/null cannot) */
	struct loop_fd rwatch, wwatch;
	struct loop_work work; /* reading and tx_ready without poll */
	struct loop_timer retry; /* pty: has somebody opened the other side? socket: accept or
				  * connect again */

	int listen_fd;    /* socket, server */
	struct loop_fd lwatch;
	char *path;       /* unix socket that was made here */
	char *peer_path;  /* unix socket, client: where to connect again, after retry_ns */
	uint64_t retry_ns;
	const struct rights *rights;

	bool tty;         /* stdio: the terminal to be restored */
	struct termios saved;
	int saved_flags[2];
};

int chr_new(struct loop *l, const char *id, enum chr_kind kind, struct chr **out,
	    struct err *err);
/* Takes fd over and waits for peers on it. */
int chr_listen(struct chr *c, int fd);
/* Takes the master side over. */
void chr_pty_start(struct chr *c, int fd);
/* The stream is there: starts watching. 0 or -errno. */
int chr_connect(struct chr *c, int rfd, int wfd);
void chr_disconnect(struct chr *c);

#endif
