import sys

import requests

response = requests.get(sys.argv[1])
print("status", response.status_code)
print(response.text)
