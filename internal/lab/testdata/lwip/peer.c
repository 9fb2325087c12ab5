/*
 * peer ADDR4 ADDR6: lwIP behind the TUN that is descriptor 3. Port 80 closes once
 * the peer has; port 81 answers the first data with 200 octets and closes. To a
 * line on standard input it answers with its connections, a line each, and an
 * empty line. It exits at the end of its input.
 */
#include <fcntl.h>
#include <lwip/tcp.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/tcpip.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

enum { TUN = 3 };

static ip_addr_t addr4, addr6;
static struct netif netif;

static err_t leave(struct pbuf *p)
{
	char b[2048];
	u16_t n = pbuf_copy_partial(p, b, sizeof b, 0);
	return write(TUN, b, n) == n ? ERR_OK : ERR_IF;
}

static err_t leave4(struct netif *n, struct pbuf *p, const ip4_addr_t *to) { return leave(p); }
static err_t leave6(struct netif *n, struct pbuf *p, const ip6_addr_t *to) { return leave(p); }

static err_t set_up(struct netif *n)
{
	n->output = leave4;
	n->output_ip6 = leave6;
	n->mtu = n->mtu6 = 1500;
	return ERR_OK;
}

static err_t received(void *answers, struct tcp_pcb *c, struct pbuf *p, err_t err)
{
	static const char answer[200];

	if (p) {
		tcp_recved(c, p->tot_len);
		pbuf_free(p);
		if (!answers)
			return ERR_OK;
		tcp_write(c, answer, sizeof answer, 0);
	}
	tcp_recv(c, NULL);
	return tcp_close(c);
}

static err_t accepted(void *answers, struct tcp_pcb *c, err_t err)
{
	tcp_recv(c, received); /* its argument is the listener's */
	return ERR_OK;
}

static void serve(u16_t port, void *answers)
{
	struct tcp_pcb *l = tcp_new_ip_type(IPADDR_TYPE_ANY);

	tcp_bind(l, IP_ANY_TYPE, port);
	l = tcp_listen(l);
	tcp_arg(l, answers);
	tcp_accept(l, accepted);
}

static void start(void *unused)
{
	netif_add(&netif, ip_2_ip4(&addr4), IP4_ADDR_ANY4, IP4_ADDR_ANY4, NULL, set_up, tcpip_input);
	netif_ip6_addr_set(&netif, 0, ip_2_ip6(&addr6));
	netif_ip6_addr_set_state(&netif, 0, IP6_ADDR_PREFERRED);
	netif_set_default(&netif);
	netif_set_link_up(&netif);
	netif_set_up(&netif);
	serve(80, NULL);
	serve(81, &netif);
	puts("ready");
	fflush(stdout);
}

static void list(struct tcp_pcb *c)
{
	for (; c; c = c->next) {
		printf("%s %s %u ", tcp_debug_state_str(c->state), ipaddr_ntoa(&c->local_ip), c->local_port);
		printf("%s %u\n", ipaddr_ntoa(&c->remote_ip), c->remote_port);
	}
}

int main(int argc, char **argv)
{
	struct pollfd fds[] = {{.fd = TUN, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
	char b[2048];

	if (argc != 3 || !ipaddr_aton(argv[1], &addr4) || !ipaddr_aton(argv[2], &addr6))
		return 2;
	tcpip_init(start, NULL);
	while (poll(fds, 2, -1) > 0) {
		ssize_t n;
		if (fds[0].revents && (n = read(TUN, b, sizeof b)) > 0) {
			struct pbuf *p = pbuf_alloc(PBUF_RAW, n, PBUF_POOL);
			if (!p || pbuf_take(p, b, n))
				return 1;
			while (netif.input(p, &netif))
				usleep(1000); /* until its queue has room */
		}
		if (fds[1].revents) {
			if (read(0, b, sizeof b) <= 0)
				return 0;
			LOCK_TCPIP_CORE();
			list(tcp_active_pcbs);
			list(tcp_tw_pcbs);
			UNLOCK_TCPIP_CORE();
			puts("");
			fflush(stdout);
		}
	}
	return 1;
}
