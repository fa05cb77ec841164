import sys
import urllib.error
import urllib.request

try:
    response = urllib.request.urlopen(sys.argv[1])
except urllib.error.HTTPError as error:
    response = error
print("status", response.status)
print(response.read().decode())
