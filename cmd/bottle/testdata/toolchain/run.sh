# Runs a tool against URLs: run.sh TOOL URL... Before each comes a line "== URL", after it
# a line "-- STATUS".
here=/workspace
work=$(mktemp -d) && cd "$work" || exit 1
tool=$1
shift

plainly() { env -u SSL_CERT_FILE -u CURL_CA_BUNDLE -u REQUESTS_CA_BUNDLE -u NODE_EXTRA_CA_CERTS "$@"; }
host() { expr "$1" : 'https*://\([^/:]*\)'; }
get() {
	case $tool in
	curl) curl -sS "$1/hello" ;;
	curl-without-variables) plainly curl -sS "$1/hello" ;;
	wget) wget -q -O - --content-on-error "$1/hello" ;;
	git) git clone -q "$1/repo.git" repo && cat repo/hello ;;
	python-urllib) python3 $here/urllib_client.py "$1/hello" ;;
	python-urllib-without-variables) plainly python3 $here/urllib_client.py "$1/hello" ;;
	python-requests) python3 $here/requests_client.py "$1/hello" ;;
	node-fetch) node $here/fetch.js "$1/hello" ;;
	node-https) node $here/https.js "$1/hello" ;;
	go) $here/client "$1/hello" ;;
	go-without-variables) plainly $here/client "$1/hello" ;;
	openssl)
		{ printf 'GET /hello HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$(host "$1")"; } |
			openssl s_client -quiet -verify_return_error -proxy "${https_proxy#http://}" -connect "$(host "$1"):443" -servername "$(host "$1")"
		;;
	apt-helper) /usr/lib/apt/apt-helper download-file "$1/hello" file && cat file ;;
	apt)
		echo "deb [trusted=yes] $1/debian ./" >/etc/apt/sources.list
		apt-get -q update && apt-get -q download bottle-hello && dpkg-deb --fsys-tarfile bottle-hello_*.deb | tar -xO ./hello
		;;
	npm)
		export npm_config_registry="$1/npm/" npm_config_update_notifier=false npm_config_cache="$work/cache"
		npm view bottle-hello version && npm install --no-audit --no-fund bottle-hello && cat node_modules/bottle-hello/hello
		;;
	*) echo "no such tool" ;;
	esac
}

if [ "$tool" = java ]; then # it takes its time to start
	java $here/Client.java "$@" 2>&1
	exit
fi
for url; do
	echo "== $url"
	mkdir "$work/${url%%:*}-$(host "$url")" && cd "$work/${url%%:*}-$(host "$url")" || exit 1
	get "$url" 2>&1
	echo "-- $?"
done
cd / && rm -rf "$work"
